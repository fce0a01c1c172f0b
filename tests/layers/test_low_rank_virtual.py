"""The low-rank virtual layer: what it returns, adds, learns, and refuses."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust.layers import LowRankVirtual

METHODS = ["svd", "nystrom", "ensemble", "factored"]


def activations(seed=0, n=256, m=24, rank=3, mean=0.3):
    """Of `rank` strong directions and many weak ones, and the least Lc at that rank."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(m, m)))
    scales = np.r_[np.linspace(0.6, 0.4, rank), 0.03 * np.linspace(1, 0.2, m - rank)]
    a = (rng.normal(size=(n, m)) * scales) @ q.T + mean * rng.normal(size=m)
    tail = np.sort(np.linalg.eigvalsh(np.cov(a.T, bias=True)))[: m - rank].sum()
    return a.astype("float32"), tail


def loss_in_float64(layer, a):
    w, z = layer.w.numpy().astype(float), a.astype(float) + layer.b.numpy().astype(float)
    return np.mean(np.sum((z @ w - z) ** 2, axis=1))


def called(layer, a, times):
    run = tf.function(lambda a: layer(a, training=True))
    for _ in range(times):
        run(tf.constant(a))


def model_with(layer, before=8, seed=0, **input_options):
    start = [keras.initializers.GlorotUniform(seed=seed + i) for i in range(3)]
    inputs = keras.Input((6, 6, 1), **input_options)
    x = keras.layers.Conv2D(4, 3, activation="relu", kernel_initializer=start[0])(inputs)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(before, kernel_initializer=start[1], name="below")(x)
    x = layer(x)
    return keras.Model(inputs, keras.layers.Dense(3, kernel_initializer=start[2], name="above")(x))


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize("method", METHODS)
def test_fixed_activations_are_left_with_the_tail_of_their_covariance(method):
    a, tail = activations()
    layer = LowRankVirtual(3, method=method)
    called(layer, a, 300)
    assert tail * (1 - 1e-4) < loss_in_float64(layer, a) < tail * 1.01


def test_small_batches_come_close_as_well():
    a, tail = activations(n=2048)
    layer = LowRankVirtual(3, method="ensemble")
    run = tf.function(lambda a: layer(a, training=True))
    for batch in np.random.default_rng(0).permutation(np.tile(a, (4, 1))).reshape(-1, 32, 24):
        run(tf.constant(batch))
    assert loss_in_float64(layer, a) < tail * 1.1


@pytest.mark.parametrize("method", METHODS)
def test_rank_after_each_projection(method):
    a, _ = activations()
    layer, ranks = LowRankVirtual(3, method=method, every=4), []
    run = tf.function(lambda a: layer(a, training=True))
    for _ in range(16):
        run(tf.constant(a))
        singular = np.linalg.svd(layer.w, compute_uv=False)
        ranks.append(int((singular > 1e-5 * singular[0]).sum()))
    assert ranks[3::4] == [3] * 4
    assert method == "factored" or min(ranks[4:7]) > 3


@pytest.mark.parametrize("norm_weight", [0.0, 1.0])
def test_activations_collapse_without_the_norm_loss(norm_weight):
    a, _ = activations(m=12)
    a = tf.Variable(a)
    layer = LowRankVirtual(3, norm_weight=norm_weight, method="svd")
    layer.build(a.shape)

    @tf.function
    def train():
        with tf.GradientTape() as tape:
            layer(a, training=True)
            loss = tf.add_n(layer.losses)
            layer._clear_losses()
        a.assign_sub(20.0 * tape.gradient(loss, a))

    for _ in range(200):
        train()
    lengths = np.linalg.norm(a, axis=1)
    singular = np.linalg.svd(a.numpy() - a.numpy().mean(0), compute_uv=False) ** 2
    if norm_weight:
        assert abs(lengths.mean() - 1) < 0.05
        assert singular[:3].sum() / singular.sum() > 0.99
    else:
        # Without it nothing holds the lengths: only what W spans is left of them.
        assert singular[3:].sum() < 1e-6


def test_gradient_to_the_activations_goes_through_both_occurrences(rng):
    a, _ = activations(n=6, m=5, rank=2)
    layer = LowRankVirtual(2, projection_weight=0.7, norm_weight=1.3, method="svd", every=3)
    called(layer, a, 2)
    w, b = layer.w.numpy().astype(float), layer.b.numpy().astype(float)

    def loss(a):
        z = a + b
        lc = np.mean(np.sum((z @ w - z) ** 2, axis=1))
        return 0.7 * lc + 1.3 * np.mean(np.abs(1 - np.linalg.norm(a, axis=1)))

    with tf.GradientTape() as tape:
        x = tf.constant(a)
        tape.watch(x)
        layer(x, training=True)
        value = tf.add_n(layer.losses)
    found = tape.gradient(value, x).numpy()
    np.testing.assert_allclose(value, loss(a.astype(float)), rtol=1e-5)
    for i, j in [(0, 0), (2, 3), (5, 4)]:
        bump = np.zeros(a.shape)
        bump[i, j] = 1e-5
        slope = (loss(a + bump) - loss(a - bump)) / 2e-5
        np.testing.assert_allclose(found[i, j], slope, rtol=1e-3, atol=1e-5)


def test_activations_of_zero_give_a_finite_gradient():
    layer = LowRankVirtual(2)
    with tf.GradientTape() as tape:
        a = tf.zeros([3, 5])
        tape.watch(a)
        layer(a, training=True)
        loss = tf.add_n(layer.losses)
    assert np.isfinite(tape.gradient(loss, a)).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("training", [False, True])
def test_the_input_comes_back_bit_for_bit(rng, dtype, training):
    a = tf.cast(rng.normal(size=(4, 3, 3, 2)), dtype)
    layer = LowRankVirtual(2, dtype="mixed_float16")
    out = layer(a, training=training)
    assert out.dtype == a.dtype
    np.testing.assert_array_equal(tf.cast(out, tf.float32), tf.cast(a, tf.float32))
    assert tuple(layer._b.shape) == (18,)
    assert {tf.as_dtype(v.dtype).name for v in layer.weights} == {"float32", "int64"}


def test_only_training_adds_a_loss_or_moves_anything(rng):
    layer = LowRankVirtual(2)
    a = tf.constant(rng.normal(size=(4, 6)).astype("float32"))
    layer(a, training=True)
    before = layer.get_weights()
    for training in (False, None):
        layer(a, training=training)
        assert not layer.losses
    layer.trainable = False
    layer(a, training=True)
    assert not layer.losses
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_layers_above_see_the_models_loss_alone(blobs):
    x, y = blobs(24)
    models = [model_with(keras.layers.Activation("linear")), model_with(LowRankVirtual(2))]
    for model in models:
        model.compile(keras.optimizers.SGD(0.1), cross_entropy())
        model.train_on_batch(x, y)
    above = [model.get_layer("above").get_weights() for model in models]
    below = [model.get_layer("below").get_weights() for model in models]
    for plain, pulled in zip(*above, strict=True):
        np.testing.assert_allclose(plain, pulled, rtol=1e-6, atol=1e-7)
    assert np.abs(below[0][0] - below[1][0]).max() > 1e-4


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_fit_logs_both_losses_and_optimizers_see_neither_w_nor_b(blobs, options):
    x, y = blobs(24)
    layer = LowRankVirtual(2, every=2, method="ensemble", columns=4, draws=2, name="lr")
    model = model_with(layer)
    model.compile(keras.optimizers.Adam(1e-3), cross_entropy(), metrics=["accuracy"], **options)
    history = model.fit(x, y, batch_size=12, epochs=2, validation_data=(x, y), verbose=0).history
    assert np.isfinite(history["lr_projection_loss"]).all()
    assert np.isfinite(history["lr_norm_loss"]).all()
    assert np.isnan(history["val_lr_projection_loss"]).all()
    assert len(model.trainable_variables) == 6
    assert not [v for v in model.optimizer.variables if tuple(v.shape) == (8, 8)]
    assert int(np.linalg.matrix_rank(layer.w, tol=1e-5)) == 2


def test_the_logged_loss_holds_both_losses_with_their_weights(blobs):
    x, y = blobs(24)
    layer = LowRankVirtual(2, projection_weight=0.5, norm_weight=2.0, name="lr")
    model = model_with(layer)
    model.compile(keras.optimizers.SGD(0.0), cross_entropy())
    plain = float(cross_entropy()(y, model(x, training=False)))
    logs = model.train_on_batch(x, y, return_dict=True)
    expected = plain + 0.5 * logs["lr_projection_loss"] + 2.0 * logs["lr_norm_loss"]
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)


def test_mixed_precision_learns_as_float32_does(blobs):
    x, y = blobs(24)
    results = []
    for policy in ("float32", "mixed_float16"):
        before = keras.mixed_precision.global_policy() if LEGACY else keras.config.dtype_policy()
        set_policy = (
            keras.mixed_precision.set_global_policy if LEGACY else keras.config.set_dtype_policy
        )
        set_policy(policy)
        try:
            layer = LowRankVirtual(2, every=2)
            model = model_with(layer)
        finally:
            set_policy(before)
        model.compile(keras.optimizers.SGD(0.05), cross_entropy())
        model.fit(x, y, batch_size=12, epochs=2, shuffle=False, verbose=0)
        results.append(layer.w.numpy())
    assert layer.compute_dtype == "float16"
    np.testing.assert_allclose(*results, atol=0.03)


def test_two_layers_and_maps_in_one_model(blobs):
    x, y = blobs(24)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(3, 3),
            LowRankVirtual(5, name="one"),
            keras.layers.Flatten(),
            keras.layers.Dense(8),
            LowRankVirtual(2, name="two", method="factored"),
            keras.layers.Dense(3),
        ]
    )
    model.compile("sgd", cross_entropy())
    logs = model.fit(x, y, epochs=1, verbose=0).history
    assert {"one_projection_loss", "one_norm_loss", "two_projection_loss"} <= set(logs)
    assert model.get_layer("one").w.shape == (48, 48)


def test_a_subclassed_model_trains_it(blobs):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = [keras.layers.Flatten(), keras.layers.Dense(8)]
            self.virtual = LowRankVirtual(2, name="lr")
            self.top = keras.layers.Dense(3)

        def call(self, x, training=None):
            for part in self.parts:
                x = part(x)
            return self.top(self.virtual(x, training=training))

    x, y = blobs(24)
    model = Net()
    model.compile("sgd", cross_entropy())
    assert "lr_projection_loss" in model.fit(x, y, epochs=1, verbose=0).history


def test_a_saved_model_goes_on_where_it_was(blobs, tmp_path):
    x, y = blobs(24)
    model = model_with(LowRankVirtual(2, every=3, method="nystrom", columns=5, seed=4, name="lr"))
    model.compile(keras.optimizers.SGD(0.1), cross_entropy())
    model.fit(x, y, batch_size=12, epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("lr").get_config() == model.get_layer("lr").get_config()
    for each in (model, loaded):
        each.fit(x, y, batch_size=12, epochs=1, shuffle=False, verbose=0)
    for old, new in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(old, new, rtol=1e-5, atol=1e-6)
    assert int(loaded.get_layer("lr")._count) == 6


def test_adversarial_training_feeds_it_with_training_calls_alone(blobs):
    x, y = blobs(24)
    layer = LowRankVirtual(2, name="lr")
    attack = kr.attacks.PGD(eps=0.05, steps=3)
    trainer = kr.AdversarialTraining(model_with(layer), attack)
    trainer.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"])
    history = trainer.fit(x, y, batch_size=12, epochs=2, validation_data=(x, y), verbose=0).history
    assert np.isfinite(history["lr_projection_loss"]).all()
    assert int(layer._count) == 4
    before = layer.get_weights()
    attack(trainer.model, x, y, seed=0)
    trainer.evaluate(x, y, verbose=0)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_adversarial_training_adds_its_loss(blobs):
    x, y = blobs(24)
    losses = []
    for weight in (0.0, 1.0):
        layer = LowRankVirtual(2, projection_weight=0.0, norm_weight=weight, name="lr")
        trainer = kr.AdversarialTraining(model_with(layer), kr.attacks.FGSM(eps=0.05))
        trainer.compile(keras.optimizers.SGD(0.0))
        logs = trainer.fit(x, y, batch_size=24, shuffle=False, verbose=0).history
        losses.append(logs["loss"][0])
    np.testing.assert_allclose(losses[1] - losses[0], logs["lr_norm_loss"][0], rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "`rank` must be a whole number >= 1, got 0"),
        ({"rank": 2.5}, "`rank` must be a whole number"),
        ({"every": 0}, "`every` must be"),
        ({"draws": 0}, "`draws` must be"),
        ({"columns": 1}, "`columns` must be at least rank=2, got 1"),
        ({"projection_weight": -1}, "`projection_weight` must be a number >= 0"),
        ({"norm_weight": float("nan")}, "`norm_weight` must be a number >= 0"),
        ({"learning_rate": 1.0}, "`learning_rate` must lie strictly between 0 and 1"),
        ({"bias_learning_rate": 0}, "`bias_learning_rate` must lie"),
        ({"method": "qr"}, "`method` must be one of"),
        ({"seed": None}, "`seed` must be an int"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        LowRankVirtual(**{"rank": 2, **options})


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"rank": 9}, (None, 2, 4), "`rank` of layer 'lr' must be at most the 8 activations"),
        ({"rank": 2, "columns": 9}, (None, 8), "`columns` of layer 'lr' must be at most the 8"),
        ({"rank": 2}, (None, None, 4), "GlobalAveragePooling2D"),
        ({"rank": 2}, (8,), "needs a batch axis"),
    ],
)
def test_shapes_that_cannot_be(options, shape, message):
    with pytest.raises(ValueError, match=message):
        LowRankVirtual(**options, name="lr").build(shape)


def test_whole_numbers_are_refused():
    with pytest.raises(TypeError, match="takes floating-point activations, got int32"):
        LowRankVirtual(2)(tf.ones([2, 4], tf.int32), training=True)


def test_auto_keeps_wide_activations_factored():
    layer = LowRankVirtual(3)
    layer.build((None, 4096))
    assert layer.resolved_method == "factored"
    assert max(tf.size(v).numpy() for v in layer.weights) == 3 * 4096
