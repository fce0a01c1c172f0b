"""FAB: the smallest perturbation, exact on linear models, in three norms."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import FAB, DeepFool
from keras_robust.attacks._boundary import shortest_step

ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


def sizes(x_adv, x, norm):
    delta = np.float64(x_adv) - np.float64(x)
    return np.linalg.norm(delta.reshape(len(x), -1), ORDER[norm], axis=1)


def wrong(model, x, y):
    return np.argmax(model(x), axis=1) != y


@pytest.fixture(scope="module")
def network(cnn, blobs):
    """A curved model and 24 images, which it is right on by definition: nothing to train."""
    model, (x, _) = cnn(), blobs(24)
    return model, x, np.argmax(model(x), axis=1)


@pytest.mark.parametrize(
    ("norm", "targets"), [("linf", None), ("l2", None), ("l1", None), ("linf", 9), ("l1", 9)]
)
def test_finds_the_smallest_perturbation_of_a_linear_model(linear, rng, norm, targets):
    """The steps are checked by themselves against general solvers elsewhere."""
    model = linear(30, classes=3)
    x = rng.uniform(size=(8, 30)).astype("float32")
    y = np.argmax(model(x), axis=1)
    logits, best = np.float64(model(x)), []
    for row in range(8):
        tries = []
        for other in {0, 1, 2} - {y[row]}:
            normal = model.weights[:, other] - model.weights[:, y[row]]
            rise = tf.constant([logits[row, y[row]] - logits[row, other]], tf.float32)
            step = shortest_step(x[row][None], normal[None], rise, norm, (0.0, 1.0))
            reached = np.float64(normal) @ step[0].numpy() >= rise[0].numpy() - 1e-4
            tries += [np.linalg.norm(step[0], ORDER[norm])] if reached else []
        best.append(min(tries))
    x_adv = FAB(norm=norm, steps=15, targets=targets)(model, x, y)
    assert np.all(wrong(model, x_adv, y))
    ratio = sizes(x_adv, x, norm) / best
    assert ratio.min() >= 1 - 1e-4 and ratio.max() <= 1.005


@pytest.mark.once
def test_takes_the_steps_of_the_paper():
    """Between two classes all points lie on the normal through x; the boundary is 1 away."""
    weights, x, seen = np.float32([[1, -1], [-2, 2]]), np.float32([[0.8, 0.1]]), []

    def model(points):
        seen.append(np.array(points)[0])
        return points @ weights

    attack = FAB(norm="l2", steps=2, alpha_max=0.2, eta=1.4, beta=0.5, bounds=(-9.0, 9.0))
    attack.run(model, tf.constant(x), tf.constant([0]), tf.constant([0, 0]), float("inf"))
    normal = weights[:, 1] - weights[:, 0]
    away = [(point - x[0]) @ normal / 1.2 for point in seen]
    # Onto it and beyond by eta, then back by beta, from where it is 0.3 away, and from x 1:
    # 0.3 / 1.3 of the step would be that of x, if alpha_max were no less.
    second = (0.7 + 1.4 * 0.3) * 0.8 + 1.4 * 0.2
    assert away[:5] == pytest.approx([0, 0, 1.4, 0.7, second], abs=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_beats_deepfool_and_random_noise_on_a_network(network, rng, norm):
    model, x, y = network
    x_adv = FAB(norm=norm, steps=30)(model, x, y).numpy()
    assert np.all(wrong(model, x_adv, y))
    found = sizes(x_adv, x, norm)
    noise = rng.normal(size=x.shape)
    noise *= (found / sizes(noise, 0 * x, norm)).reshape(-1, 1, 1, 1)
    assert wrong(model, np.clip(x + noise, 0, 1).astype("float32"), y).mean() < 0.2
    if norm != "l1":
        deepfool = sizes(DeepFool(norm=norm)(model, x, y), x, norm)
        assert np.mean(found <= deepfool * 1.01) > 0.7 and found.mean() < deepfool.mean()


def test_strong_attacks_need_as_much(network):
    """PGD, many times over: 5% inside the smallest perturbation it finds none."""
    model, x, y = network
    found = sizes(FAB(targets=2)(model, x, y), x, "linf")
    for row in np.argsort(found)[::6]:
        one, label = x[row : row + 1], y[row : row + 1]
        for share, fooled in ((0.95, False), (1.01, True)):
            attack = kr.attacks.PGD(float(found[row]) * share, steps=40, restarts=3, loss="margin")
            assert wrong(model, attack(model, one, label), label)[0] == fooled


@pytest.mark.parametrize(("norm", "targets"), [("linf", 2), ("l2", None), ("l1", 1)])
def test_a_radius_keeps_the_rows_within_it_and_no_others(network, norm, targets):
    model, x, y = network
    smallest = sizes(FAB(norm=norm, steps=20, targets=targets)(model, x, y), x, norm)
    eps = float(np.median(smallest))
    x_adv = FAB(eps, norm=norm, steps=20, targets=targets)(model, x, y).numpy()
    # Rows rest once they are found, so that they may be farther than the smallest.
    clear = np.abs(smallest - eps) > 1e-3 * eps
    np.testing.assert_array_equal(wrong(model, x_adv, y)[clear], (smallest <= eps)[clear])
    assert sizes(x_adv, x, norm).max() <= eps
    beyond = ~wrong(model, x_adv, y)
    np.testing.assert_array_equal(x_adv[beyond], x[beyond])


def test_restarts_only_make_perturbations_smaller(network):
    model, x, y = network
    one = sizes(FAB(norm="l2", steps=5)(model, x, y), x, "l2")
    three = sizes(FAB(norm="l2", steps=5, restarts=3)(model, x, y), x, "l2")
    assert np.all(three <= one) and np.any(three < one)


def test_rows_do_not_depend_on_their_neighbours(linear, rng):
    model = linear(20, classes=3)
    x = rng.uniform(size=(8, 20)).astype("float32")
    y = np.argmax(model(x), axis=1)
    for attack in (FAB(steps=10), FAB(0.1, targets=2, steps=10)):
        together = attack(model, x, y).numpy()
        alone = np.concatenate([attack(model, x[i : i + 1], y[i : i + 1]) for i in range(8)])
        np.testing.assert_allclose(together, alone, atol=1e-3)


def test_rows_that_are_wrong_already_are_left_alone(linear, rng):
    model = linear(20, classes=3)
    x = rng.uniform(size=(8, 20)).astype("float32")
    right = np.argmax(model(x), axis=1)
    y = np.where(np.arange(8) % 2, right, (right + 1) % 3)
    x_adv = FAB(steps=5)(model, x, y).numpy()
    np.testing.assert_array_equal(x_adv[::2], x[::2])
    assert np.all(wrong(model, x_adv, y))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_models_without_a_useful_gradient_give_back_the_images(rng, norm):
    """A gradient of zero, logits that overflow, and a gradient that is NaN at some points."""
    x = rng.uniform(0.1, 0.4, size=(4, 6)).astype("float32")
    y = np.zeros(4, int)

    def flat(x):
        return tf.stack([2.0 + 0.0 * x[:, 0], 0.0 * x[:, 1]], axis=1)

    def steep(x):
        return tf.stack([1e38 * (1.0 + x[:, 0]), -1e38 * (1.0 + x[:, 1])], axis=1)

    def kinked(x):
        return tf.stack([2.0 - tf.sqrt(tf.nn.relu(x[:, 0] - 0.5)), 0.0 * x[:, 1]], axis=1)

    for model in (flat, steep, kinked):
        for targets in (None, 1):
            attack = FAB(norm=norm, steps=5, targets=targets, restarts=2)
            np.testing.assert_array_equal(attack(model, x, y), x)


@pytest.mark.once
@hypothesis.settings(max_examples=12, deadline=None)
@hypothesis.given(
    norm=st.sampled_from(["linf", "l2", "l1"]),
    eps=st.one_of(st.none(), st.just(0.0), st.floats(1e-3, 3.0)),
    bounds=st.sampled_from([(0.0, 1.0), (-3.0, 5.0)]),
    targets=st.sampled_from([None, 1, 5]),
    restarts=st.integers(1, 2),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    seed=st.integers(0, 2**50),
)
def test_stays_in_ball_and_bounds(linear, norm, eps, bounds, targets, restarts, dtype, seed):
    generator = np.random.default_rng(seed)
    model = linear(12, classes=3, seed=seed % 1000)
    x = generator.uniform(*bounds, size=(4, 3, 4)).astype(dtype)
    y = generator.integers(0, 3, size=4)
    attack = FAB(eps, norm=norm, bounds=bounds, targets=targets, restarts=restarts, steps=3)
    x_adv = attack(model, x, y, seed=seed)
    assert x_adv.dtype == tf.float32 and x_adv.shape == x.shape
    x = x.astype("float32")
    assert np.all(np.isfinite(x_adv))
    assert sizes(x_adv, x, norm).max() <= (np.inf if eps is None else eps)
    assert x_adv.numpy().min() >= bounds[0] and x_adv.numpy().max() <= bounds[1]
    assert np.all(wrong(model, x_adv, y) >= wrong(model, x, y))
    # Nothing moves that does not fool the model.
    still = ~wrong(model, x_adv, y)
    np.testing.assert_array_equal(x_adv.numpy()[still], x[still])
    np.testing.assert_array_equal(attack(model, x, y, seed=seed), x_adv)


def test_runs_inside_a_function_with_an_open_batch(network):
    model, x, y = network
    attack = FAB(0.2, targets=2, steps=5, restarts=2)
    signature = [tf.TensorSpec([None, *x.shape[1:]]), tf.TensorSpec([None], tf.int32)]

    @tf.function(input_signature=signature)
    def attacked(images, labels):
        return attack(model, images, labels)

    np.testing.assert_allclose(attacked(x, y), attack(model, x, y), atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "l0"}, "`norm` must be one of"),
        ({"eps": -1.0}, "`eps` must be a finite number >= 0"),
        ({"steps": 0}, "`steps` must be an int >= 1, got steps=0"),
        ({"restarts": 1.5}, "`restarts` must be an int >= 1, got restarts=1.5"),
        ({"targets": 0}, "`targets` must be an int >= 1, got targets=0"),
        ({"alpha_max": 1.1}, r"`alpha_max` must be in \[0, 1\], got alpha_max=1.1"),
        ({"eta": 0.9}, r"`eta` must be in \[1, 2\), got eta=0.9"),
        ({"beta": 1.0}, r"`beta` must be in \(0, 1\), got beta=1.0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FAB(**settings)


def test_a_model_without_gradient_is_refused():
    constant = tf.constant(5 * np.eye(2), tf.float32)
    with pytest.raises(ValueError, match="`model` has no gradient with respect to its input"):
        FAB()(lambda x: constant, np.full((2, 3), 0.5, "float32"), [0, 1])


def test_names_tell_the_kinds_apart():
    assert FAB().name == "FAB"
    assert FAB(0.3, targets=9).name == "FAB-T"
    assert FAB(1.0, norm="l2", restarts=5).name == "FAB x5 l2"
