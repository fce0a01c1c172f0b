"""The call that all attacks share: what it accepts, refuses and leaves alone."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import LEGACY, keras

attack = kr.attacks.PGD(0.1, steps=2)
X = np.full((4, 6, 6, 1), 0.5, "float32")
Y = np.array([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (X[0, 0, 0], Y[:1], ValueError, "`x` must have a batch axis"),
        ((X * 255).astype("uint8"), Y, TypeError, "`x` must be floating point, got dtype uint8"),
        (X * np.nan, Y, ValueError, "`x` holds 144 values that are NaN"),
        (X * 255, Y, ValueError, r"`x` has values in \[127.5, 127.5\], outside bounds"),
        (X[:0], Y[:0], ValueError, "`x` is empty"),
        (X, Y[:3], ValueError, "`x` and `y` must have the same length, got 4 and 3"),
        (X, Y + 1, ValueError, r"`y` must be in \[0, 3\), got labels in \[1, 3\]"),
        (X, Y - 1, ValueError, r"`y` must be in \[0, 3\), got labels in \[-1, 1\]|classes"),
        (X, Y + 0.5, ValueError, "`y` must hold whole class numbers, got for instance .*0.5"),
        (X, np.zeros((4, 2, 2)), ValueError, r"`y` must be integer labels of shape \(batch,\)"),
        (X, np.full((4, 4), 0.25), ValueError, "`y` has 4 columns, but the model gives 3 classes"),
        (X, np.eye(4), ValueError, r"`y` must be in \[0, 3\), got labels in \[0, 3\]"),
    ],
)
def test_wrong_data_is_refused(cnn, x, y, error, message):
    with pytest.raises(error, match=message):
        attack(cnn(), x, y)


@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (0.0, np.inf)])
@pytest.mark.parametrize(
    "make",
    [
        kr.attacks.CarliniWagner,
        kr.attacks.ElasticNet,
        kr.attacks.HopSkipJump,
        kr.attacks.Spatial,
        lambda bounds: kr.attacks.FAB(norm="l1", bounds=bounds),
        lambda bounds: kr.attacks.AutoAttack(0.1, norm="l1", bounds=bounds),
        lambda bounds: kr.attacks.Noise(0.1, kind="salt_and_pepper", bounds=bounds),
    ],
)
def test_infinite_bounds_are_refused_where_the_range_counts(make, bounds):
    with pytest.raises(ValueError, match=r"`bounds` must be finite for .*, got bounds=\(.*inf\)"):
        make(bounds=bounds)


@pytest.mark.parametrize(
    "make",
    [
        lambda bounds: kr.attacks.PGD(1.0, steps=5, bounds=bounds),
        lambda bounds: kr.attacks.PGD(1.0, norm="l1", steps=5, bounds=bounds),
        lambda bounds: kr.attacks.APGD(1.0, norm="l2", steps=5, bounds=bounds),
        lambda bounds: kr.attacks.Square(1.0, queries=50, bounds=bounds),
        lambda bounds: kr.attacks.FAB(1.0, steps=5, bounds=bounds),
        lambda bounds: kr.attacks.DeepFool(bounds=bounds),
        lambda bounds: kr.attacks.LBFGS(bounds=bounds),
        lambda bounds: kr.attacks.Noise(1.0, bounds=bounds),
    ],
)
def test_other_attacks_do_as_with_wide_bounds(linear, make):
    model = linear(36, classes=3)
    y = np.argmax(model(X), axis=1)
    free, wide = (make(bounds)(model, X, y) for bounds in ((-np.inf, np.inf), (-9.0, 9.0)))
    np.testing.assert_allclose(free, wide, atol=1e-5)
    assert np.all(np.any(free != X, axis=(1, 2, 3)))


def test_wrong_labels_are_refused_at_every_call(cnn):
    model = cnn()
    attack(model, X, Y)
    with pytest.raises(ValueError, match=r"`y` must be in \[0, 3\)"):
        attack(model, X, Y + 1)


def test_softmax_models_are_refused(cnn):
    body = cnn()
    ends = [
        keras.Sequential([body, keras.layers.Softmax()]),
        keras.Sequential([body, keras.layers.Activation("softmax")]),
        keras.Sequential([body, keras.layers.Dense(3, activation="softmax")]),
        keras.Model(body.input, keras.layers.Dense(3, activation="sigmoid")(body.output)),
    ]
    ends.append(keras.Sequential([keras.Input((6, 6, 1)), ends[0]]))
    for model in ends:
        model(X)
        with pytest.raises(ValueError, match="`model` ends in a softmax or sigmoid, but logits"):
            attack(model, X, Y)


def test_probabilities_of_a_callable_are_refused(cnn):
    model = cnn()
    with pytest.raises(ValueError, match="`model` returned probabilities, but logits are needed"):
        attack(lambda x: tf.nn.softmax(model(x)), X, Y)


def test_single_logit_and_non_callable_are_refused(cnn):
    with pytest.raises(ValueError, match="with at least 2 classes, got shape"):
        attack(cnn(classes=1), X, Y)
    with pytest.raises(TypeError, match="`model` must be a Keras model or a callable"):
        attack("model.keras", X, Y)


def test_model_without_gradient_is_refused():
    constant = tf.constant(np.eye(4, 3), tf.float32)
    with pytest.raises(ValueError, match="`model` has no gradient with respect to its input"):
        attack(lambda x: constant, X, Y)


def test_model_of_the_other_keras_is_refused():
    if LEGACY:
        import keras as other
    else:
        import tf_keras as other
    model = other.Sequential([other.layers.Flatten(), other.layers.Dense(3)])
    with pytest.raises(TypeError, match="`model` is a .* model .* but this process runs"):
        attack(model, X, Y)


@pytest.mark.parametrize("kind", ["integer", "column", "float", "one_hot"])
def test_labels_in_every_form_give_the_same_examples(cnn, kind):
    model = cnn()
    forms = {
        "integer": Y,
        "column": Y[:, None],
        "float": Y.astype("float32"),
        "one_hot": np.eye(3)[Y],
    }
    expected = attack(model, X, Y)
    np.testing.assert_allclose(attack(model, X, forms[kind]), expected, atol=1e-6)


def test_zero_eps_is_the_identity(cnn, rng):
    x = rng.uniform(size=X.shape).astype("float32")
    for norm in ("linf", "l2", "l1"):
        for make in (kr.attacks.FGSM, kr.attacks.PGD):
            np.testing.assert_array_equal(make(0.0, norm=norm)(cnn(), x, Y), x)


def test_batch_norm_statistics_and_metrics_are_left_alone(cnn, rng):
    model = cnn(batch_norm=True)
    before = [weight.copy() for weight in model.get_weights()]
    attack(model, rng.uniform(size=X.shape).astype("float32"), Y)
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_one_trace_serves_all_radii_and_calls(cnn):
    model, traces = cnn(), []

    def counted(x):
        traces.append(1)
        return model(x)

    kr.attacks.PGD(0.1, steps=2)(counted, X, Y)
    first = len(traces)
    for eps in (0.0, 0.05, 0.2):
        kr.attacks.PGD(eps, steps=2)(counted, X, Y, seed=3)
    assert len(traces) == first


def test_attacked_models_are_not_kept_alive(linear):
    model = linear(36, classes=3)
    attack(model, X, Y)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_float16_models_keep_small_gradients(rng):
    """A gradient of 1e-9 is zero in float16; attacks only need its sign."""
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(3, dtype="mixed_float16", kernel_initializer="glorot_uniform")(
        inputs
    )
    model = keras.Model(inputs, outputs)
    x = rng.uniform(0.3, 0.7, size=(8, 4)).astype("float32")
    y = np.argmax(model(x), axis=1)
    gain = kr.losses.margin(y, model(attack(model, x, y))) - kr.losses.margin(y, model(x))
    assert np.all(gain.numpy() > 0)


@pytest.mark.parametrize("wrap", [lambda model: model, kr.attacks.StraightThrough])
def test_float16_layers_count_whatever_the_policy_says(wrap):
    """The gradient, of 1e-8, vanishes in float16 unless it is scaled."""
    small = [keras.initializers.Constant(value) for value in (5e-5, 1e-4)]
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(1, dtype="mixed_float16", kernel_initializer=small[0])(inputs)
    two = keras.layers.Dense(1, dtype="mixed_float16", kernel_initializer=small[1])(hidden)
    model = keras.Model(inputs, keras.layers.Concatenate()([two, -two]))
    assert model.compute_dtype == "float32"
    x = np.full((2, 4), 0.5, "float32")
    x_adv = kr.attacks.FGSM(0.25)(wrap(model), x, [0, 1])
    np.testing.assert_array_equal(x_adv, [[0.25] * 4, [0.75] * 4])


@pytest.mark.parametrize("targeted", [False, True])
def test_a_loss_that_is_not_a_number_at_the_input_does_not_hold_it_there(linear, targeted):
    model = linear(36, classes=2)
    y = np.argmax(model(X), axis=1) ^ targeted
    clean = kr.losses.margin(y, model(X))

    def loss(labels, logits):
        margin = kr.losses.margin(labels, logits)
        return tf.where(tf.abs(margin - clean) < 1e-6, np.nan, margin)

    attack = kr.attacks.APGD(1e-3, loss=loss, steps=5, targeted=targeted)
    gain = kr.losses.margin(y, model(attack(model, X, y))) - clean
    assert np.all(gain.numpy() * (-1 if targeted else 1) > 0)


def test_works_inside_a_tf_function(cnn):
    model = cnn()
    run = tf.function(lambda x, y: attack(model, x, y, seed=1))
    x_adv = run(tf.constant(X), tf.constant(Y))
    np.testing.assert_allclose(x_adv, attack(model, X, Y, seed=1), atol=1e-6)


@pytest.mark.parametrize("seed", [0.5, None, "one"])
def test_wrong_seed_is_refused(cnn, seed):
    with pytest.raises(ValueError, match="`seed` must be an int or an integer tensor"):
        attack(cnn(), X, Y, seed=seed)


def test_models_of_several_outputs_and_labels_in_words_are_refused(cnn):
    model = cnn()
    with pytest.raises(ValueError, match="must return one tensor of logits, got a dict"):
        attack(lambda x: {"logits": model(x)}, X, Y)
    with pytest.raises(TypeError, match="`y` must hold class numbers, got dtype string"):
        attack(model, X, np.array(["cat", "dog", "cat", "dog"]))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_confident_one_hot_labels_in_a_graph_are_attacked_as_integers_are(jit_compile):
    """Where the margin is 40, the label's own logit must still count."""
    weights = tf.constant([[80.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    step = kr.attacks.PGD(0.1, steps=1, step_size=0.1, random_start=False)
    run = tf.function(lambda x, y: step(lambda x: x @ weights, x, y), jit_compile=jit_compile)
    x, y = tf.fill((2, 2), 0.5), tf.constant([0, 0])
    moved = run(x, tf.one_hot(y, 3))
    np.testing.assert_allclose(moved, [[0.4, 0.4]] * 2, atol=1e-6)
    np.testing.assert_allclose(moved, run(x, y), atol=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, None, "`y` must be an array .*, got None"),
        (tf.data.Dataset.from_tensors((X, Y)), Y, "`x` must be .*, got a tf.data.Dataset"),
        ("x.npy", Y, "`x` must be an array .*, got 'x.npy'"),
        (iter([X]), Y, "`x` must be an array .*, got a generator"),
    ],
)
def test_what_is_no_array_is_refused_by_name(cnn, x, y, message):
    with pytest.raises(TypeError, match=message):
        attack(cnn(), x, y)


@pytest.mark.parametrize("row", [[np.nan, 0.5, 0.5], [-0.5, 1.0, 0.5], [0.0] * 3])
def test_label_vectors_that_are_none_are_refused(cnn, row):
    with pytest.raises(ValueError, match="`y` must hold label vectors"):
        attack(cnn(), X, [[0.2, 0.3, 0.5]] * 3 + [row])


@pytest.mark.parametrize(
    "images",
    [
        kr.attacks.Spatial(),
        kr.attacks.Square(0.1),
        kr.attacks.AutoAttack(0.1),
        kr.attacks.Transfer(kr.attacks.Square(0.1), lambda x: tf.reduce_mean(x, [2, 3])),
    ],
)
def test_channels_first_are_refused_where_axes_count(images):
    x = np.full((2, 3, 8, 8), 0.5, "float32")
    with pytest.raises(ValueError, match="`x` has shape .* looks channels first"):
        images(lambda x: tf.reduce_mean(x, [2, 3]), x, [0, 1])
    kr.attacks.FGSM(0.1)(lambda x: tf.reduce_mean(x, [2, 3]), x, [0, 1])
