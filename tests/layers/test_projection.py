"""Matrices of low rank, against numpy in float64."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust._seed import as_seed
from keras_robust.layers._projection import _columns, ensemble, exact, nystrom

pytestmark = pytest.mark.once


def near_projector(rng, m=48, rank=4, noise=0.05):
    q, _ = np.linalg.qr(rng.normal(size=(m, rank)))
    return (q @ q.T + noise * rng.normal(size=(m, m)) / m**0.5).astype("float32")


def truncated(w, rank):
    u, s, v = np.linalg.svd(w.astype(float))
    return (u[:, :rank] * s[:rank]) @ v[:rank]


def product(factors):
    return tf.matmul(*factors).numpy()


METHODS = {
    "svd": lambda w, r, seed: exact(w, r),
    "nystrom": lambda w, r, seed: nystrom(w, r, 12, seed),
    "ensemble": lambda w, r, seed: ensemble(w, r, 12, 5, seed),
}


@pytest.mark.parametrize("name", METHODS)
def test_rank_is_the_one_asked_for(rng, name):
    w = tf.constant(near_projector(rng, noise=0.5))
    singular = np.linalg.svd(product(METHODS[name](w, 4, as_seed(0))), compute_uv=False)
    assert singular[3] > 0.3 and singular[4] < 1e-5


def test_exact_is_the_truncated_svd(rng):
    w = near_projector(rng, noise=0.3)
    np.testing.assert_allclose(product(exact(tf.constant(w), 4)), truncated(w, 4), atol=1e-5)


@pytest.mark.parametrize("name", ["nystrom", "ensemble"])
def test_samples_of_columns_of_a_matrix_of_low_rank_find_all_of_it(rng, name):
    w = near_projector(rng, noise=0.0)
    np.testing.assert_allclose(product(METHODS[name](tf.constant(w), 4, as_seed(1))), w, atol=1e-5)


def test_nystrom_of_all_columns_is_the_truncated_svd(rng):
    w = near_projector(rng, noise=0.3)
    found = product(nystrom(tf.constant(w), 4, 48, as_seed(0)))
    np.testing.assert_allclose(found, truncated(w, 4), atol=1e-5)


def test_an_ensemble_comes_closer_than_one_draw(rng):
    w = near_projector(rng, noise=0.5)
    best = truncated(w, 4)

    def error(function):
        tries = [product(function(as_seed(s))) for s in range(8)]
        return np.mean([np.linalg.norm(found - w) for found in tries]) / np.linalg.norm(best - w)

    one = error(lambda seed: nystrom(tf.constant(w), 4, 8, seed))
    five = error(lambda seed: ensemble(tf.constant(w), 4, 8, 5, seed))
    assert 1.0 <= five < one < 1.3


def test_columns_of_zeros_are_never_drawn(rng):
    w = np.zeros((200, 200), "float32")
    w[:, 7:19] = rng.normal(size=(200, 12))
    drawn = _columns(tf.constant(w), 12, 3, as_seed(0)).numpy()
    assert (np.sort(drawn, axis=1) == np.arange(7, 19)).all()


def test_draws_differ_and_repeat_with_the_seed(rng):
    w = tf.constant(near_projector(rng))
    first, again, other = (_columns(w, 6, 2, as_seed(s)).numpy() for s in (0, 0, 1))
    assert (first == again).all() and (first != other).any() and (first[0] != first[1]).any()
    assert all(len(set(draw)) == 6 for draw in first)


def test_projections_compile(rng):
    w = tf.constant(near_projector(rng))
    for name in ("svd", "ensemble"):
        compiled = tf.function(
            lambda w, name=name: tf.matmul(*METHODS[name](w, 4, as_seed(0))), jit_compile=True
        )
        np.testing.assert_allclose(compiled(w), product(METHODS[name](w, 4, as_seed(0))), atol=2e-5)
