"""Feedback on each layer's outputs: its pools, what it trains, its limits."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust import losses
from keras_robust._keras import keras
from keras_robust._seed import as_seed, fold, normal
from keras_robust.training._layer_feedback import adversarial_outputs

LayerFeedback = kr.training.LayerFeedback
ATTACK = kr.attacks.PGD(0.2, "l2", steps=2)
QUICK = kr.attacks.PGD(0.2, steps=1)


def network(seed=0, l2=None, dtype=None):
    layers = keras.layers
    own = {"dtype": dtype} if dtype else {}
    start = [keras.initializers.GlorotUniform(seed=seed + i) for i in range(3)]
    decay = keras.regularizers.L2(l2) if l2 else None
    inputs = keras.Input((6, 6, 1))
    x = layers.Flatten(name="flat")(inputs)
    x = layers.Dense(8, "relu", kernel_initializer=start[0], name="one", **own)(x)
    x = layers.Dense(7, "sigmoid", kernel_initializer=start[1], name="two", **own)(x)
    logits = layers.Dense(3, kernel_initializer=start[2], kernel_regularizer=decay, **own)
    return keras.Model(inputs, logits(x))


def fitted(trainer, data, optimizer=None, **settings):
    trainer.compile(optimizer or keras.optimizers.SGD(0.1, momentum=0.9), jit_compile=False)
    history = trainer.fit(*data, batch_size=16, shuffle=False, verbose=0, **settings)
    return history.history["loss"], trainer.model.get_weights()


@pytest.fixture(scope="module")
def still():
    """A trainer whose weights stood still (rate 0) for six steps, and the data."""
    trainer = LayerFeedback(network(), ATTACK, pool=20, renew=0.25)
    generator = np.random.default_rng(0)
    x, y = generator.uniform(size=(48, 6, 6, 1)).astype("float32"), np.arange(48) % 3
    fitted(trainer, (x, y), keras.optimizers.SGD(0.0), epochs=2)
    return trainer, x, y


def test_without_pools_it_is_plain_training_to_the_bit(blobs):
    plain = network(l2=0.01)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    plain.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, jit_compile=False)
    plain.fit(*blobs(48), batch_size=16, epochs=2, shuffle=False, verbose=0)
    for off in ({"pool": 0}, {"weight": 0.0}):
        _, weights = fitted(LayerFeedback(network(l2=0.01), ATTACK, **off), blobs(48), epochs=2)
        for own, expected in zip(weights, plain.get_weights(), strict=True):
            np.testing.assert_array_equal(own, expected)


def test_pools_renew_so_many_rows_of_each_batch(still):
    trainer, _, y = still
    # 4 of each batch: 24 in six steps, of which 20 are kept.
    for name, pool in zip(["input", "one", "two"], trainer.objective.pools):
        _, labels, counts = (variable.numpy() for variable in pool.variables())
        assert counts.tolist() == [4, 20]
        newest = labels[:4]
        np.testing.assert_array_equal(newest, y[32:36])
        np.testing.assert_array_equal(labels[4:8], y[16:20])  # The oldest: the second step's.
        assert trainer.pools()[name][0].shape[0] == 20


def test_what_a_pool_holds_is_near_the_outputs_in_their_range(still):
    trainer, x, _ = still
    x = x[32:36]
    for cut in trainer.objective.cuts:
        made = trainer.pools()[cut.name][0][:4]
        clean = x if cut.below is None else cut.below(x).numpy()
        moved = np.linalg.norm((made - clean).reshape(4, -1), axis=1)
        unit = np.linalg.norm(clean.reshape(4, -1), axis=1).mean()
        assert np.all(moved <= 0.2 * unit * (1 + 1e-5)) and moved.max() > 0.05 * unit
        assert made.min() >= clean.min() - 1e-6 and made.max() <= clean.max() + 1e-6


def test_adversarial_outputs_raise_the_loss_more_than_random_ones_as_long(blobs):
    model = network()
    fitted(LayerFeedback(model, ATTACK, pool=0), blobs(96), epochs=20)
    x, y = blobs(48, seed=1)
    labels = tf.constant(y)
    for cut in LayerFeedback(model, ATTACK).objective.cuts:
        clean = tf.constant(x) if cut.below is None else cut.below(x)
        made = adversarial_outputs(ATTACK, cut.above, clean, labels, as_seed(0))
        flat = tf.reshape(made - clean, [48, -1])
        noise = losses.unit_rows(normal(tf.shape(flat), as_seed(1)))
        noise *= tf.norm(flat, axis=1, keepdims=True)
        random = clean + tf.reshape(noise, clean.shape)
        bad, even, good = (
            losses.cross_entropy(labels, cut.above(values)).numpy()
            for values in (made, random, clean)
        )
        assert np.mean(bad > even) > 0.8, cut.name
        assert bad.mean() - good.mean() > 2 * abs(even.mean() - good.mean()), cut.name


def test_deep_fool_finds_outputs_just_over_the_boundary(blobs):
    model = network()
    fitted(LayerFeedback(model, ATTACK, pool=0), blobs(96), epochs=20)
    x, y = blobs(16, seed=1)
    attack = kr.attacks.DeepFool(steps=30)
    # What is above this layer is linear: its boundary is met exactly.
    cut = LayerFeedback(model, attack, ["two"]).objective.cuts[0]
    clean = cut.below(x)
    right = np.argmax(cut.above(clean), axis=1) == y
    made = adversarial_outputs(attack, cut.above, clean, tf.constant(y), as_seed(0))
    moved = np.linalg.norm(made - clean, axis=1)
    assert right.sum() > 12 and np.all(moved[~right] < 1e-5)
    back = clean + 0.9 * (made - clean)
    over, before = (np.argmax(cut.above(values), axis=1) == y for values in (made, back))
    # Rows that find no way over the boundary in the range of the outputs stay where they are.
    found = right & (moved > 0)
    assert found.sum() > 6 and not over[found].any() and before[found].all()


def test_the_loss_is_batch_plus_pools_and_each_trains_the_layers_above_alone(blobs):
    """One step of rate 1: the weights have moved by the gradients, as computed one by one."""
    x, y = blobs(16)
    model = network(l2=0.1)
    trainer = LayerFeedback(model, ATTACK, renew=1.0, pool=16, weight=2.0)
    start = model.get_weights()
    loss, moved = fitted(trainer, (x, y), keras.optimizers.SGD(1.0))
    model.set_weights(start)
    weights = model.trainable_variables
    with tf.GradientTape() as tape:
        total = tf.reduce_mean(losses.cross_entropy(tf.constant(y), model(x)))
        total += 0.1 * tf.reduce_sum(tf.square(weights[4]))
    expected = [gradient.numpy() for gradient in tape.gradient(total, weights)]
    seed = fold(fold(as_seed(0), 0), 0)
    for number, (cut, pool) in enumerate(zip(trainer.objective.cuts, trainer.objective.pools)):
        # What step 0 drew, again: a third of the batch's rows from each pool.
        values, labels = pool.draw(6, fold(seed, -1 - number))
        with tf.GradientTape() as tape:
            own = 2.0 / 3.0 * tf.reduce_mean(losses.cross_entropy(labels, cut.above(values)))
        gradients = tape.gradient(own, weights)
        assert [g is None for g in gradients] == [index < 2 * number for index in range(6)]
        total += own
        for whole, gradient in zip(expected[2 * number :], gradients[2 * number :]):
            whole += gradient.numpy()
    np.testing.assert_allclose(loss[0], total, rtol=1e-5)
    for old, new, gradient in zip(start, moved, expected, strict=True):
        np.testing.assert_allclose(old - new, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_xla_agrees_with_the_plain_graph(blobs):
    losses = []
    for jit in (False, True):
        trainer = LayerFeedback(network(), ATTACK, pool=8)
        trainer.compile(keras.optimizers.SGD(0.1), jit_compile=jit)
        history = trainer.fit(*blobs(40), batch_size=16, epochs=2, shuffle=False, verbose=0)
        losses.append(history.history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_resumes_with_its_pools_and_saves_the_model_plain(blobs, tmp_path):
    ends = []
    for folder, stops in (("whole", [3]), ("parts", [1, 3])):
        for epochs in stops:
            trainer = LayerFeedback(network(), QUICK, ["one"], pool=24, seed=3)
            trainer.compile(keras.optimizers.SGD(0.1))
            data = tf.data.Dataset.from_tensor_slices(blobs(32)).shuffle(32, seed=0).batch(16)
            trainer.fit(data, epochs=epochs, resume=tmp_path / folder, verbose=0)
        pools = [array for pair in trainer.pools().values() for array in pair]
        ends.append([*trainer.model.get_weights(), *pools])
    for here, there in zip(*ends, strict=True):
        np.testing.assert_array_equal(here, there)
    trainer.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = blobs(4)[0]
    np.testing.assert_allclose(loaded(x), trainer.model(x), atol=1e-6)
    other = LayerFeedback(network(), QUICK, ["one"], pool=25, seed=3)
    other.compile(keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match="belongs to another run"):
        other.fit(data, epochs=4, resume=tmp_path / "parts", verbose=0)


def test_soft_labels_are_kept_with_their_rows_and_pools_are_float32(blobs):
    x, y = blobs(16)
    soft = (0.9 * np.eye(3)[y] + 0.1 / 3).astype("float32")
    model = network(dtype="mixed_bfloat16")
    trainer = LayerFeedback(model, QUICK, ["two"], pool=8)
    trainer.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    trainer.fit(x, soft, batch_size=16, shuffle=False, verbose=0)
    values, labels = trainer.pools()["two"]
    np.testing.assert_array_equal(labels, soft[:4])
    assert values.dtype == "float32" and model.get_layer("two").compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"attack": kr.attacks.LBFGS()}, TypeError, "`attack` must be .* got LBFGS"),
        ({"layers": "one"}, ValueError, "`layers` must be None or a list of names"),
        ({"layers": ["three"]}, ValueError, "`layers` names 'three', which is no layer"),
        ({"pool": -1}, ValueError, "`pool` must be a whole number >= 0, got pool=-1"),
        ({"renew": 0.0}, ValueError, r"`renew` must be in \(0, 1\], got renew=0.0"),
        ({"eps_ramp": kr.training.Ramp(5)}, ValueError, "`eps_ramp` must be None"),
        ({"weight": -1.0}, ValueError, "`weight` must be a finite number >= 0, got weight=-1.0"),
    ],
)
def test_refuses_settings(settings, error, message):
    with pytest.raises(error, match=message):
        LayerFeedback(network(), **{"attack": ATTACK, **settings})


def test_refuses_xla_with_deep_fool():
    trainer = LayerFeedback(network(), kr.attacks.DeepFool())
    with pytest.raises(ValueError, match="`jit_compile` must be False with DeepFool"):
        trainer.compile("sgd", jit_compile=True)
    trainer.compile("sgd")
    assert not trainer.jit_compile


def test_refuses_data_and_pools_that_do_not_fit(blobs):
    trainer = LayerFeedback(network(), ATTACK, pool=3)
    trainer.compile("sgd")
    with pytest.raises(ValueError, match="`pool`=3 is smaller than what a step renews, 4 rows"):
        trainer.fit(*blobs(16), batch_size=16, verbose=0)
    with pytest.raises(ValueError, match="Give it arrays or a tf.data.Dataset"):
        trainer.fit(iter([blobs(16)]), verbose=0)
