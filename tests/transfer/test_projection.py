"""Projections whose directions are known."""

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.transfer import low_dimensional_embedding

pytestmark = pytest.mark.once


def low_rank(rng, inputs, features, rank):
    scale = np.geomspace(4.0, 1.0, rank)
    return (rng.normal(size=(inputs, rank)) * scale) @ rng.normal(size=(rank, features)) + 2.0


@pytest.mark.parametrize(("inputs", "features"), [(60, 15), (15, 60)])
def test_data_of_low_rank_comes_back_exactly(rng, inputs, features):
    z = low_rank(rng, inputs, features, 4)
    fitted = low_dimensional_embedding(z, 4)
    np.testing.assert_allclose(fitted.back(fitted(z)), z, atol=1e-4)
    assert fitted.kept == pytest.approx(1.0)
    assert fitted(z).shape == (inputs, 4) and fitted(z).dtype == np.float32


@pytest.mark.parametrize(("inputs", "features"), [(60, 15), (15, 60)])
def test_pca_is_the_singular_value_decomposition(rng, inputs, features):
    z = rng.normal(size=(inputs, features)) * np.geomspace(1, 0.1, features)
    fitted = low_dimensional_embedding(z, 5)
    centred = z - z.mean(axis=0)
    _, values, right = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(fitted.basis.T @ right[:5].T), np.eye(5), atol=1e-5)
    energy = np.square(values)
    assert fitted.kept == pytest.approx(energy[:5].sum() / energy.sum(), rel=1e-6)
    assert np.all(fitted.basis[np.abs(fitted.basis).argmax(0), range(5)] > 0)


def test_more_directions_than_the_data_has_are_still_orthonormal(rng):
    z = low_rank(rng, 6, 20, 2)
    basis = low_dimensional_embedding(z, 6).basis
    np.testing.assert_allclose(basis.T @ basis, np.eye(6), atol=1e-5)


@pytest.mark.parametrize("method", ["pca", "subspace", "random"])
def test_the_first_directions_are_those_of_fewer(rng, method):
    z = rng.normal(size=(40, 9)) * np.arange(1, 10)
    subspace = rng.normal(size=(9, 6)) if method == "subspace" else None
    more, fewer = (
        low_dimensional_embedding(z, k, method, subspace=subspace, seed=5) for k in (5, 2)
    )
    np.testing.assert_allclose(np.abs(more.first(2).basis), np.abs(fewer.basis), atol=1e-5)
    np.testing.assert_allclose(more.basis.T @ more.basis, np.eye(5), atol=1e-5)
    assert np.isnan(more.first(2).kept) and more.k == 5


def test_a_subspace_is_kept_to_and_sorted_by_variance(rng):
    z = rng.normal(size=(50, 6)) * [9, 1, 5, 1, 1, 1]
    span = np.eye(6)[:, [1, 2, 5]] @ rng.normal(size=(3, 6))
    fitted = low_dimensional_embedding(z, 3, "subspace", subspace=span)
    np.testing.assert_allclose(fitted.basis[[0, 3, 4]], 0, atol=1e-6)
    assert abs(fitted.basis[2, 0]) > 0.95
    assert fitted.kept < low_dimensional_embedding(z, 3).kept


def test_random_directions_follow_their_seed(rng):
    z = rng.normal(size=(8, 30))
    one, same, other = (low_dimensional_embedding(z, 3, "random", seed=s).basis for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


def test_other_embeddings_go_through_the_fitted_map(rng):
    train, test = rng.normal(size=(20, 5)), rng.normal(size=(7, 5))
    fitted = low_dimensional_embedding(train, 5)
    expected = (test - train.mean(axis=0)) @ fitted.basis
    np.testing.assert_allclose(fitted(test), expected, atol=1e-5)
    np.testing.assert_allclose(fitted.back(fitted(test)), test, atol=1e-5)


def test_constant_embeddings_are_allowed():
    fitted = low_dimensional_embedding(np.full((4, 3), 2.0), 2)
    np.testing.assert_allclose(fitted.back(fitted(np.full((1, 3), 2.0))), [[2.0] * 3])
    assert fitted.kept == 1.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda z: low_dimensional_embedding(z, 0), ValueError, r"`k` must be .* in \[1, 4\]"),
        (lambda z: low_dimensional_embedding(z, 5), ValueError, r"`k` must be .* in \[1, 4\]"),
        (lambda z: low_dimensional_embedding(z, 2, "svd"), ValueError, "`method` must be one of"),
        (lambda z: low_dimensional_embedding(z, 2, "subspace"), ValueError, "`subspace` goes with"),
        (
            lambda z: low_dimensional_embedding(z, 2, subspace=np.eye(6)),
            ValueError,
            "`subspace` goes with",
        ),
        (
            lambda z: low_dimensional_embedding(z, 2, "subspace", subspace=np.eye(5)),
            ValueError,
            r"each of the 6 features, got shape \(5, 5\)",
        ),
        (
            lambda z: low_dimensional_embedding(z, 1, "subspace", subspace=np.zeros((6, 6))),
            ValueError,
            "spans nothing",
        ),
        (
            lambda z: low_dimensional_embedding(z, 2, "subspace", subspace=np.ones((6, 1))),
            ValueError,
            r"\[1, 1\], the rank of `subspace`",
        ),
        (lambda z: low_dimensional_embedding(z, 2)(z[:, :5]), ValueError, "`z` has 5 features"),
        (lambda z: low_dimensional_embedding(z.astype(int), 2), TypeError, "floating-point"),
    ],
)
def test_wrong_input_says_what_to_do(call, error, message, rng):
    with pytest.raises(error, match=message):
        call(rng.normal(size=(4, 6)))


def test_the_subspace_of_a_layer_is_what_it_projects_on(rng):
    layer = kr.layers.LowRankVirtual(2, method="svd")
    layer.build((None, 12))
    span = np.linalg.qr(rng.normal(size=(12, 2)))[0]
    layer._w.assign(rng.normal(size=(12, 2)) @ span.T)  # W^T maps into the span
    z = rng.normal(size=(30, 12))
    basis = low_dimensional_embedding(z, 2, "subspace", subspace=layer).basis
    np.testing.assert_allclose(basis @ basis.T, span @ span.T, atol=1e-5)
    # A little of full rank, as between two projections, does not count.
    layer._w.assign_add((1e-3 * rng.normal(size=(12, 12))).astype("float32"))
    basis = low_dimensional_embedding(z, 2, "subspace", subspace=layer).basis
    np.testing.assert_allclose(basis @ basis.T, span @ span.T, atol=1e-2)


def test_a_layer_that_learnt_nothing_is_refused(rng):
    layer = kr.layers.LowRankVirtual(2)
    with pytest.raises(ValueError, match="has not been built"):
        low_dimensional_embedding(rng.normal(size=(9, 12)), 2, "subspace", subspace=layer)
    layer.build((None, 12))
    with pytest.raises(ValueError, match="spans nothing"):
        low_dimensional_embedding(rng.normal(size=(9, 12)), 2, "subspace", subspace=layer)
