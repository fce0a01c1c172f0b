"""The balls: projections and maximisers against independent solutions."""

import warnings

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from keras_robust.attacks import FGSM, PGD, AutoAttack, Square, _threat
from keras_robust.attacks._threat import Ball, check_threat
from keras_robust.evaluation._inputs import rescaled

pytestmark = pytest.mark.once

NORMS = ("linf", "l2", "l1")
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


def norm(delta, name):
    return np.linalg.norm(np.reshape(np.float64(delta), (len(delta), -1)), ORDERS[name], axis=1)


balls = st.fixed_dictionaries(
    {
        "norm": st.sampled_from(NORMS),
        "eps": st.one_of(st.just(0.0), st.floats(1e-4, 30.0)),
        "bounds": st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (-2.5, -0.5)]),
        "shape": st.sampled_from([(1, 2), (3, 5), (2, 4, 3), (2, 6, 6, 3)]),
        "seed": st.integers(0, 2**40),
        "scale": st.sampled_from([1e-8, 1e-3, 1.0, 1e4]),
    }
)


def draw(case):
    generator = np.random.default_rng(case["seed"])
    low, high = case["bounds"]
    x = generator.uniform(low, high, size=case["shape"])
    # Some entries lie on the bounds, as black and white pixels do.
    x = np.where(generator.random(case["shape"]) < 0.2, generator.choice([low, high]), x)
    direction = generator.normal(size=case["shape"]) * case["scale"]
    direction[generator.random(case["shape"]) < 0.1] = 0.0
    return tf.constant(x, tf.float32), tf.constant(direction, tf.float32)


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(balls)
def test_every_point_is_in_the_ball_and_the_bounds(case):
    x, direction = draw(case)
    ball = Ball(case["norm"], case["eps"], case["bounds"])
    seed = tf.constant([case["seed"] % 2**31, 1])
    start = ball.random(x, seed)
    for delta in (
        start,
        ball.project(direction, x),
        ball.corner(direction, x),
        ball.ascend(start, direction, x, case["eps"] / 3),
    ):
        placed = ball.place(x, delta).numpy().astype(np.float64)
        assert np.all(np.isfinite(placed))
        assert placed.min() >= case["bounds"][0] and placed.max() <= case["bounds"][1]
        assert np.all(
            norm(placed - x.numpy().astype(np.float64), case["norm"]) <= case["eps"] + 1e-6
        )


def test_a_step_longer_than_the_input_is_rounded_down():
    """0.698 + 16.33 rounds up in float32, and so does the difference that would show it."""
    x, eps = tf.constant([[0.69831753]]), 16.334403517560176
    placed = Ball("linf", eps, (0.0, 255.0)).place(x, tf.constant([[30.0]])).numpy()
    assert np.float64(placed[0, 0]) - np.float64(x[0, 0]) <= eps
    assert placed[0, 0] > 17.0327


@pytest.mark.parametrize("name", NORMS)
def test_a_large_image_stays_in_its_ball(name):
    """Rounding adds up over 150,000 pixels; the ball holds nevertheless."""
    x = tf.random.stateless_uniform((1, 224, 224, 3), [1, 2])
    eps = {"linf": 8 / 255, "l2": 3.0, "l1": 255.0}[name]
    ball = Ball(name, eps)
    placed = ball.place(x, ball.random(x, tf.constant([3, 4])) * 5.0)
    size = norm(placed.numpy().astype(np.float64) - x.numpy().astype(np.float64), name)
    assert size <= eps + 1e-6
    assert size >= 0.9 * eps


@pytest.mark.parametrize("seed", range(4))
def test_l1_projection_is_the_nearest_point(seed):
    """Against a quadratic program solved by scipy, box included."""
    generator = np.random.default_rng(seed)
    x, point, eps = generator.uniform(size=6), generator.normal(size=6), 0.8
    ball = Ball("l1", eps)
    ours = ball.project(tf.constant(point[None], tf.float32), tf.constant(x[None], tf.float32))[0]
    # delta = up - down with up, down >= 0 makes the l1 norm linear.
    solution = scipy.optimize.minimize(
        lambda v: np.sum((v[:6] - v[6:] - point) ** 2),
        np.zeros(12),
        jac=lambda v: np.concatenate([g := 2 * (v[:6] - v[6:] - point), -g]),
        bounds=[(0, 1 - a) for a in x] + [(0, a) for a in x],
        constraints={"type": "ineq", "fun": lambda v: eps - v.sum(), "jac": lambda v: -np.ones(12)},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    np.testing.assert_allclose(ours, solution.x[:6] - solution.x[6:], atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_l2_projection_is_the_nearest_point(seed):
    generator = np.random.default_rng(seed)
    x, point, eps = generator.uniform(size=6), generator.normal(size=6), 0.5
    ours = Ball("l2", eps).project(
        tf.constant(point[None], tf.float32), tf.constant(x[None], tf.float32)
    )[0]
    solution = scipy.optimize.minimize(
        lambda d: np.sum((d - point) ** 2),
        np.zeros(6),
        jac=lambda d: 2 * (d - point),
        bounds=[(-a, 1 - a) for a in x],
        constraints={"type": "ineq", "fun": lambda d: eps**2 - d @ d, "jac": lambda d: -2 * d},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    np.testing.assert_allclose(ours, solution.x, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_l1_corner_solves_the_linear_program(seed):
    generator = np.random.default_rng(seed)
    x, gradient = generator.uniform(size=8), generator.normal(size=8)
    delta = Ball("l1", 1.3).corner(
        tf.constant(gradient[None], tf.float32), tf.constant(x[None], tf.float32)
    )[0]
    program = scipy.optimize.linprog(
        np.concatenate([-gradient, gradient]),
        A_ub=np.ones((1, 16)),
        b_ub=[1.3],
        bounds=[(0, 1 - a) for a in x] + [(0, a) for a in x],
    )
    np.testing.assert_allclose(gradient @ delta.numpy(), -program.fun, rtol=1e-5)


def test_corner_without_active_bounds_is_the_textbook_direction():
    x, gradient = tf.fill((1, 3), 0.5), tf.constant([[3.0, 0.0, -4.0]])
    np.testing.assert_allclose(Ball("linf", 0.1).corner(gradient, x), [[0.1, 0.0, -0.1]])
    np.testing.assert_allclose(Ball("l2", 0.1).corner(gradient, x), [[0.06, 0.0, -0.08]], rtol=1e-6)
    np.testing.assert_allclose(Ball("l1", 0.1).corner(gradient, x), [[0.0, 0.0, -0.1]])


def test_l2_corner_uses_the_room_that_the_bounds_leave():
    """The first entry is held at 0.1 by the bound; the rest of the radius goes to the second."""
    x, gradient = tf.constant([[0.9, 0.2]]), tf.constant([[1.0, 1.0]])
    delta = Ball("l2", 0.5).corner(gradient, x)
    np.testing.assert_allclose(delta, [[0.1, np.sqrt(0.25 - 0.01)]], rtol=1e-5)


@pytest.mark.parametrize("name", ["l2", "l1"])
def test_random_points_fill_the_ball_uniformly(name):
    """In n dimensions the share of points within radius r * eps is r ** n."""
    x = tf.fill((20_000, 3), 0.5)
    sizes = norm(Ball(name, 0.1).random(x, tf.constant([0, 0])), name) / 0.1
    for radius in (0.3, 0.6, 0.9):
        assert abs(np.mean(sizes < radius) - radius**3) < 0.015


def test_large_entries_of_l1_points_are_of_either_sign():
    x = tf.fill((2000, 50), 0.5)
    delta = Ball("l1", 0.1).random(x, tf.constant([0, 0])).numpy()
    # Each of the entries is about 0.1 / 50 in size.
    assert abs(delta.sum(axis=1).mean()) < 1e-3
    assert 0.9 < np.median(delta.max(axis=1)) / -np.median(delta.min(axis=1)) < 1.1


def test_an_l1_step_without_a_gradient_stays():
    x, start = tf.fill((2, 2), 0.5), tf.constant([[0.1, -0.1], [0.1, -0.1]])
    gradient = tf.constant([[0.0, 0.0], [1.0, 0.0]])
    moved = Ball("l1", 0.4).ascend(start, gradient, x, 0.05)
    np.testing.assert_array_equal(moved[0], start[0])
    np.testing.assert_allclose(moved[1], [0.175, -0.075], rtol=1e-5)


def test_l1_corner_works_without_bounds():
    x, gradient = tf.fill((1, 3), 0.5), tf.constant([[0.0, 3.0, -4.0]])
    delta = Ball("l1", 0.5, (-np.inf, np.inf)).corner(gradient, x)
    np.testing.assert_array_equal(delta, [[0.0, 0.0, -0.5]])


def test_l1_step_goes_straight_to_the_corner_and_stops_there():
    x, gradient, start = tf.fill((1, 3), 0.5), tf.constant([[1.0, 3.0, 2.0]]), tf.zeros((1, 3))
    ball = Ball("l1", 0.4)
    half = ball.ascend(start, gradient, x, 0.1)
    np.testing.assert_allclose(half, [[0.0, 0.2, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(ball.ascend(half, gradient, x, 9.0), [[0.0, 0.4, 0.0]], rtol=1e-6)


def test_tiny_gradients_still_give_a_direction():
    x, gradient = tf.fill((1, 2), 0.5), tf.constant([[3e-30, -4e-30]])
    np.testing.assert_allclose(
        Ball("l2", 0.1).ascend(tf.zeros_like(x), gradient, x, 0.05), [[0.03, -0.04]], rtol=1e-5
    )


def test_size_matches_numpy(rng):
    delta = rng.normal(size=(3, 4, 2)).astype("float32")
    for name in NORMS:
        np.testing.assert_allclose(
            _threat.size(tf.constant(delta), name), norm(delta, name), rtol=1e-6
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps": -0.1}, "`eps` must be a finite number >= 0.*eps=-0.1"),
        ({"eps": float("nan")}, "`eps` must be a finite number"),
        ({"eps": "0.1"}, "`eps` must be a finite number"),
        ({"norm": "l7"}, "`norm` must be one of 'linf', 'l2', 'l1', got norm='l7'"),
        ({"bounds": (1.0, 0.0)}, "`bounds` must be .*low < high"),
    ],
)
def test_wrong_threats_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        check_threat(**{"eps": 0.1, "norm": "linf", "bounds": (0.0, 1.0)} | settings)


@pytest.mark.parametrize("make", [PGD, FGSM, Square, AutoAttack])
def test_eps_in_other_units_is_warned_of(make):
    message = r"eps=8 is a ball larger than .* images \[0, 1\]: did you mean 8/255\?"
    with pytest.warns(UserWarning, match=message) as seen:
        make(8)
    assert len(seen) == 1 and seen[0].filename == __file__


def test_eps_in_its_units_is_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PGD(0.0), PGD(8 / 255), PGD(1.0), PGD(8, "l2"), PGD(8, bounds=(0, 255))
        PGD(8, bounds=(-np.inf, np.inf))
        narrow = PGD(0.01, step_size=0.001, bounds=(0, 0.1))
        assert narrow.for_eps_one().eps == 1
        # What `evaluate` sweeps goes beyond the range on purpose.
        assert rescaled(PGD(0.6), 1.8).eps == 1.8
