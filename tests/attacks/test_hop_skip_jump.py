"""HopSkipJump: distances of linear models, budgets, and starts that fail."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_robust as kr
from keras_robust._keras import keras

HopSkipJump = kr.attacks.HopSkipJump


def lengths(x_adv, x, norm):
    delta = (np.asarray(x_adv, "float64") - x).reshape(len(x), -1)
    return np.linalg.norm(delta, 2 if norm == "l2" else np.inf, axis=1)


@pytest.fixture
def centred(linear):
    """A linear model whose boundary goes through the middle of the cube."""

    def make(inputs):
        model = linear(inputs)
        model.bias = -model.weights.sum(0) / 2
        return model

    return make


def exact_distances(model, x, norm):
    slope = (model.weights[:, 0] - model.weights[:, 1]).astype("float64")
    gap = np.abs(x @ slope + model.bias[0] - model.bias[1])
    return gap / np.linalg.norm(slope, 2 if norm == "l2" else 1)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_comes_near_the_boundary_of_a_linear_model(centred, rng, norm):
    model = centred(16)
    x = rng.uniform(0.3, 0.7, size=(6, 16)).astype("float32")
    y = np.argmax(model(x), axis=1)
    exact = exact_distances(model, x, norm)
    assert exact.max() < 0.4  # so that the bounds do not matter
    x_adv = HopSkipJump(norm=norm, queries=4000)(model, x, y)
    assert np.all(np.argmax(model(x_adv), axis=1) != y)
    ratio = lengths(x_adv, x, norm) / exact
    assert ratio.min() >= 1 - 1e-5 and ratio.max() < (1.02 if norm == "l2" else 1.3)


def test_reads_decisions_alone(cnn, blobs):
    model, (x, _) = cnn(), blobs(12)
    y = np.argmax(model(x), axis=1)

    def label_only(x):
        return tf.one_hot(tf.argmax(model(x), axis=1), 3) * 2.0

    attack = HopSkipJump(queries=300)
    np.testing.assert_array_equal(attack(label_only, x, y), attack(model, x, y))


def test_no_image_is_asked_more_than_the_budget(centred, rng):
    model, x = centred(16), rng.uniform(size=(1, 16)).astype("float32")
    y = np.argmax(model(x), axis=1)
    for queries in (1, 40, 777):
        box = kr.attacks.BlackBox(lambda x: model(x).numpy(), classes=2)
        HopSkipJump(queries=queries)(box, x, y)
        # One more when the model is checked, and one for whether it is right at all.
        assert box.queries <= queries + 2
    assert box.queries > 700


def test_the_first_step_has_the_probes_asked_for(centred, rng):
    model, x = centred(16), rng.uniform(0.3, 0.7, size=(1, 16)).astype("float32")
    y, asked = np.argmax(model(x), axis=1), []
    for probes in (40, 300):
        box = kr.attacks.BlackBox(lambda x: model(x).numpy(), classes=2)
        HopSkipJump(steps=1, probes=probes)(box, x, y)
        asked.append(box.queries - probes)
    # Beside them the start, the halvings, and the tries of a shorter step, of which a worse
    # direction may need one more.
    assert max(asked) - min(asked) <= 2


def test_more_queries_come_closer(cnn, blobs):
    model, (x, _) = cnn(), blobs(24)
    y = np.argmax(model(x), axis=1)
    few, many = (lengths(HopSkipJump(queries=n)(model, x, y), x, "l2") for n in (200, 1500))
    assert np.median(many) < 0.9 * np.median(few)


def test_finds_its_way_where_inputs_are_rounded(centred, rng):
    """Probes shorter than a level of grey see nothing: they must grow."""
    model = centred(64)
    x = rng.integers(60, 190, size=(200, 64)).astype("float32") / 255
    exact = exact_distances(model, x, "l2")
    x, exact = x[exact > 0.15][:12], exact[exact > 0.15][:12]

    def rounded(x):
        return model(tf.round(x * 255) / 255)

    y = np.argmax(rounded(x), axis=1)
    x_adv = HopSkipJump(queries=2500)(rounded, x, y)
    assert np.all(np.argmax(rounded(x_adv), axis=1) != y)
    # 1.14 with probes of the paper's length.
    assert np.median(lengths(x_adv, x, "l2") / exact) < 1.1


def test_images_without_a_start_stay_as_they_are():
    x = np.full((3, 4, 4, 1), 0.5, "float32")
    logits = tf.constant([[3.0, 1.0]])
    x_adv = HopSkipJump(queries=500)(lambda x: tf.repeat(logits, tf.shape(x)[0], 0), x, [0] * 3)
    np.testing.assert_array_equal(x_adv, x)


def test_images_near_enough_are_not_asked_about(centred, rng):
    model, x = centred(16), rng.uniform(0.2, 0.8, size=(4, 16)).astype("float32")
    y = np.argmax(model(x), axis=1)
    asked = []
    for eps in (None, 100.0):
        box = kr.attacks.BlackBox(lambda x: model(x).numpy(), classes=2)
        HopSkipJump(eps, queries=600)(box, x, y)
        asked.append(box.queries)
    assert asked[1] < 0.2 * asked[0]


@settings(max_examples=4, deadline=None)
@given(
    norm=st.sampled_from(["l2", "linf"]),
    shape=st.sampled_from([(5,), (3, 4, 2)]),
    eps=st.sampled_from([None, 0.0, 0.05, 0.4]),
    bounds=st.sampled_from([(0.0, 1.0), (-1.0, 2.0)]),
    seed=st.integers(0, 99),
)
def test_stays_in_ball_and_bounds_and_is_never_worse(norm, shape, eps, bounds, seed):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(int(np.prod(shape)), 3)).astype("float32")
    x = rng.uniform(*bounds, size=(6, *shape)).astype("float32")
    y = rng.integers(0, 3, size=6)

    def model(x):
        return tf.reshape(x, [-1, len(weights)]) @ weights

    attack = HopSkipJump(eps, norm=norm, queries=150, bounds=bounds)
    x_adv = attack(model, x, y, seed=seed).numpy()
    np.testing.assert_array_equal(x_adv, attack(model, x, y, seed=seed))
    assert np.isfinite(x_adv).all()
    assert x_adv.min() >= bounds[0] and x_adv.max() <= bounds[1]
    if eps is not None:
        assert lengths(x_adv, x, norm).max() <= eps
    already = np.argmax(model(x), axis=1) != y
    np.testing.assert_array_equal(x_adv[already], x[already])
    moved = np.any(x_adv != x, axis=tuple(range(1, x.ndim)))
    assert np.all(np.argmax(model(x_adv), axis=1)[moved] != y[moved])


@pytest.mark.parametrize("give", [tf.nn.softmax, lambda z: tf.one_hot(tf.argmax(z, -1), 3)])
def test_labels_may_come_as_one_hot_rows_or_probabilities(linear, rng, give):
    model, x = linear(12, classes=3), rng.uniform(size=(3, 12)).astype("float32")
    y, attack = np.argmax(model(x), axis=1), HopSkipJump(queries=200)
    expected = attack(model, x, y)
    np.testing.assert_array_equal(attack(lambda x: give(model(x)), x, y), expected)
    box = kr.attacks.BlackBox(lambda x: give(model(x)).numpy(), classes=3)
    assert np.all(np.argmax(model(attack(box, x, y)), axis=1) != y)


def test_a_softmax_model_is_attacked_by_its_labels(cnn, blobs):
    body, (x, _) = cnn(), blobs(6)
    model = keras.Sequential([body, keras.layers.Softmax()])
    y = np.argmax(model(x), axis=1)
    x_adv = HopSkipJump(queries=200)(model, x, y)
    np.testing.assert_array_equal(x_adv, HopSkipJump(queries=200)(body, x, y))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "l1"}, "HopSkipJump works in the norms 'linf', 'l2', got norm='l1'"),
        ({"queries": 0}, "`queries` must be an int >= 1, got queries=0"),
        ({"steps": True}, "`steps` must be an int >= 1, got steps=True"),
        ({"probes": 0.5}, "`probes` must be an int >= 1, got probes=0.5"),
        ({"eps": -1}, "`eps` must be a finite number >= 0"),
    ],
)
def test_settings_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        HopSkipJump(**arguments)


def test_names():
    attack = HopSkipJump(queries=50, norm="linf")
    assert attack.name == "HopSkipJump-50 linf" and attack.searches and not attack.needs_gradient
