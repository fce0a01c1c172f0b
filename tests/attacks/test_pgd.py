"""PGD: exact on linear models, and every setting does what it says."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import PGD


def margins(model, x, y):
    return kr.losses.margin(y, model(x)).numpy()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.6), ("l1", 2.0)])
@pytest.mark.parametrize("random_start", [False, True])
def test_reaches_the_maximum_of_a_linear_model(linear, rng, norm, eps, random_start):
    """The exact maximiser over ball and bounds is FGSM's, checked by itself elsewhere."""
    model = linear(40)
    x = rng.uniform(size=(16, 40)).astype("float32")
    y = np.argmax(model(x), axis=1)
    attack = PGD(eps, norm=norm, steps=40, step_size=eps / 4, random_start=random_start)
    best = margins(model, kr.attacks.FGSM(eps, norm=norm, loss="margin")(model, x, y), y)
    reached = margins(model, attack(model, x, y), y)
    clean = margins(model, x, y)
    assert np.all(reached <= best + 1e-4)
    np.testing.assert_array_less(0.99 * (best - clean), reached - clean)


@pytest.mark.once
@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
    norm=st.sampled_from(["linf", "l2", "l1"]),
    eps=st.one_of(st.just(0.0), st.floats(1e-3, 3.0)),
    bounds=st.sampled_from([(0.0, 1.0), (-3.0, 5.0)]),
    loss=st.sampled_from(["ce", "margin", "dlr"]),
    targeted=st.booleans(),
    momentum=st.sampled_from([0.0, 0.9]),
    early_stop=st.booleans(),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    seed=st.integers(0, 2**50),
)
def test_stays_in_ball_and_bounds(
    linear, norm, eps, bounds, loss, targeted, momentum, early_stop, dtype, seed
):
    generator = np.random.default_rng(seed)
    model = linear(12, classes=3, seed=seed % 1000)
    x = generator.uniform(*bounds, size=(4, 3, 4)).astype(dtype)
    y = generator.integers(0, 3, size=4)
    attack = PGD(
        eps,
        norm=norm,
        bounds=bounds,
        loss=loss,
        targeted=targeted,
        momentum=momentum,
        early_stop=early_stop,
        steps=3,
    )
    x_adv = attack(model, x, y, seed=seed)
    assert x_adv.dtype == tf.float32 and x_adv.shape == x.shape
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    # The result is float32, and so is the centre of the ball.
    delta = np.float64(x_adv.numpy()) - np.float64(x.astype("float32"))
    assert np.linalg.norm(delta.reshape(4, -1), order, axis=1).max() <= eps + 1e-6
    assert x_adv.numpy().min() >= bounds[0] and x_adv.numpy().max() <= bounds[1]
    np.testing.assert_array_equal(attack(model, x, y, seed=seed), x_adv)


@pytest.fixture(scope="module")
def trained(cnn, blobs):
    """A network that is right on clean blobs, and images it is attacked on."""
    model, (x, y) = cnn(), blobs()
    keras = kr._keras.keras
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(x, y, epochs=15, verbose=0, shuffle=False)
    assert np.mean(np.argmax(model(x), 1) == y) == 1.0
    return model, x, y


def fooled(model, x, y):
    return np.argmax(model(x), axis=1) != y


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("steps", [4, 15])
def test_early_stop_fools_the_same_images(trained, steps, restarts):
    model, x, y = trained
    attack = PGD(0.22, steps=steps, restarts=restarts)
    plain = fooled(model, attack(model, x, y, seed=3), y)
    early = dataclasses.replace(attack, early_stop=True)
    np.testing.assert_array_equal(fooled(model, early(model, x, y, seed=3), y), plain)
    assert 0 < plain.mean() < 1, "the case must be neither easy nor hopeless"


def test_best_iterate_is_never_worse_than_the_last(trained):
    model, x, y = trained
    attack = PGD(0.2, steps=6, step_size=0.2)
    last = dataclasses.replace(attack, keep_best=False)(model, x, y)
    best = attack(model, x, y)
    assert np.all(fooled(model, best, y) | ~fooled(model, last, y))

    def loss(x_adv):
        return kr.losses.cross_entropy(y, model(x_adv)).numpy()

    same = fooled(model, best, y) == fooled(model, last, y)
    assert np.all(loss(best)[same] >= loss(last)[same] - 1e-6)
    assert np.any(loss(best) > loss(last) + 1e-3)


def test_restarts_keep_the_best(trained):
    model, x, y = trained
    one = fooled(model, PGD(0.22, steps=3)(model, x, y), y)
    many = fooled(model, PGD(0.22, steps=3, restarts=8)(model, x, y), y)
    assert np.all(many | ~one)
    assert many.sum() > one.sum()


def test_restarts_without_random_start_are_refused():
    with pytest.raises(ValueError, match="restarts=2 without random start repeats"):
        PGD(0.1, restarts=2, random_start=False)


def test_momentum_changes_the_result(trained):
    model, x, y = trained
    plain = PGD(0.2, steps=4, step_size=0.1, random_start=False)
    with_momentum = dataclasses.replace(plain, momentum=0.9)
    assert np.abs(plain(model, x, y) - with_momentum(model, x, y)).max() > 0.01


def test_momentum_follows_the_authors_recursion(cnn, blobs):
    """MI-FGSM by hand in numpy: g = mu * g + grad / mean|grad|, x += step * sign(g)."""
    model, (x, y) = cnn(), blobs(6)
    attack = PGD(0.2, steps=3, step_size=0.05, momentum=0.7, random_start=False, keep_best=False)
    velocity, x_adv = np.zeros_like(x), x.copy()
    for _ in range(3):
        variable = tf.constant(x_adv)
        with tf.GradientTape() as tape:
            tape.watch(variable)
            loss = kr.losses.cross_entropy(y, model(variable))
        gradient = tape.gradient(loss, variable).numpy()
        velocity = 0.7 * velocity + gradient / np.abs(gradient).mean((1, 2, 3), keepdims=True)
        x_adv = np.clip(np.clip(x_adv + 0.05 * np.sign(velocity), x - 0.2, x + 0.2), 0, 1)
    np.testing.assert_allclose(attack(model, x, y), x_adv, atol=1e-6)


def test_targeted_reaches_its_target(trained):
    model, x, y = trained
    target = (y + 1) % 3
    x_adv = PGD(0.5, steps=20, targeted=True)(model, x, target)
    assert np.mean(np.argmax(model(x_adv), 1) == target) > 0.95


@pytest.mark.parametrize("loss", ["ce", "margin", "dlr", kr.losses.cross_entropy])
def test_every_loss_beats_noise_of_the_same_size(trained, loss):
    model, x, y = trained
    sign = np.sign(np.random.default_rng(0).normal(size=x.shape))
    noise = np.clip(x + 0.3 * sign, 0, 1).astype("float32")
    x_adv = PGD(0.3, steps=10, loss=loss)(model, x, y)
    assert fooled(model, x_adv, y).mean() > fooled(model, noise, y).mean() + 0.3


def test_seed_repeats_and_another_differs(trained):
    model, x, y = trained
    attack = PGD(0.1, steps=2)
    np.testing.assert_array_equal(attack(model, x, y, seed=5), attack(model, x, y, seed=5))
    assert np.any(attack(model, x, y, seed=5).numpy() != attack(model, x, y, seed=6).numpy())


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_xla_draws_the_same_random_start(linear, rng, norm):
    model, x = linear(6), rng.uniform(0.3, 0.7, size=(3, 6)).astype("float32")
    y = np.argmax(model(x), axis=1)
    attack = PGD(0.2, norm=norm, steps=1, step_size=0.0, keep_best=False)
    compiled = tf.function(lambda x, y: attack(model, x, y, seed=4), jit_compile=True)
    x_adv = attack(model, x, y, seed=4)
    np.testing.assert_allclose(compiled(tf.constant(x), tf.constant(y)), x_adv, atol=1e-6)
    assert np.abs(x_adv - x).max() > 0.01


def test_numpy_settings_are_plain_numbers_and_hash():
    attack = PGD(np.float32(0.25), steps=np.int64(3), bounds=np.array([0, 1]))
    assert attack == PGD(0.25, steps=3) and hash(attack) == hash(PGD(0.25, steps=3))
    assert (type(attack.eps), type(attack.steps), attack.bounds) == (float, int, (0.0, 1.0))


@pytest.mark.parametrize(
    "loss",
    [
        lambda labels, logits: tf.reduce_mean(kr.losses.cross_entropy(labels, logits)),
        lambda labels, logits: kr.losses.cross_entropy(labels, logits)[:, None],
    ],
)
def test_own_losses_must_give_a_value_an_example(linear, rng, loss):
    x = rng.uniform(size=(3, 6)).astype("float32")
    with pytest.raises(ValueError, match="`loss` must return one value an example"):
        PGD(0.1, loss=loss, steps=2)(linear(6), x, [0, 1, 0])


def test_compiled_by_xla_is_as_strong(trained):
    model, x, y = trained
    attack = PGD(0.22, steps=12)
    compiled = tf.function(lambda x, y: attack(model, x, y), jit_compile=True)
    eager = fooled(model, attack(model, x, y), y).mean()
    assert abs(fooled(model, compiled(tf.constant(x), tf.constant(y)), y).mean() - eager) < 0.05


def test_the_default_step_size_scales_with_eps(linear, rng):
    model, x = linear(6), rng.uniform(0.4, 0.6, size=(3, 6)).astype("float32")
    y = np.argmax(model(x), axis=1)
    attack = PGD(0.08, steps=5)
    explicit = dataclasses.replace(attack, step_size=2.5 * 0.08 / 5)
    np.testing.assert_allclose(attack(model, x, y), explicit(model, x, y), atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "`steps` must be an int >= 1, got steps=0"),
        ({"steps": 2.5}, "`steps` must be an int"),
        ({"restarts": 0}, "`restarts` must be an int >= 1"),
        ({"step_size": -1.0}, "`step_size` must be >= 0"),
        ({"momentum": 1.5}, r"`momentum` must be in \[0, 1\]"),
        ({"loss": "mse"}, "`loss` must be one of 'ce', 'margin', 'dlr' or a function"),
        ({"norm": "l0"}, "`norm` must be one of"),
        ({"eps": True}, "`eps` must be a finite number"),
        ({"bounds": (1, 0)}, "`bounds` must be"),
        ({"eps": -1}, "`eps` must be a finite number >= 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PGD(**{"eps": 0.1} | settings)


def test_targeted_must_be_a_bool():
    with pytest.raises(TypeError, match="`targeted` must be True or False, got targeted=3"):
        PGD(0.1, targeted=3)


def test_names_tell_settings_apart():
    names = [
        PGD(0.1).name,
        PGD(0.1, steps=7, restarts=3, norm="l1").name,
        PGD(0.1, momentum=0.5).name,
        PGD(0.1, loss="dlr", targeted=True).name,
    ]
    assert names == ["PGD-20", "PGD-7 x3 l1", "MI-FGSM-20", "PGD-20 dlr targeted"]
