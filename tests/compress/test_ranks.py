"""Ranks by energy and by budget, the latter against trying all of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_robust.compress._ranks import allot, by_energy, largest


@given(st.integers(1, 40), st.integers(1, 40))
def test_largest_is_the_last_rank_that_saves(rows, columns):
    rank = largest(rows, columns)
    assert rank * (rows + columns) < rows * columns <= (rank + 1) * (rows + columns)


def test_by_energy_on_squares_known_by_hand():
    values = np.sqrt([5.0, 3.0, 2.0])
    shares = [0.1, 0.5, 0.51, 0.8, 0.81, 1.0]
    assert [by_energy(values, share) for share in shares] == [1, 1, 2, 2, 3, 3]
    assert by_energy(np.array([2.0, 0.0, 0.0]), 1.0) == 1
    assert by_energy(np.zeros(3), 0.9) == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 0.99))
def test_allot_fits_and_keeps_close_to_the_best_product_of_energies(seed, budget):
    generator = np.random.default_rng(seed)
    shapes = [(12, 10), (9, 14), (20, 8)]
    spectra = [np.sort(generator.exponential(size=min(s)) ** 2)[::-1] for s in shapes]
    limit = budget * sum(m * n for m, n in shapes)

    def weights(ranks):
        return sum(k * (m + n) if k else m * n for k, (m, n) in zip(ranks, shapes, strict=True))

    def kept(ranks):
        shares = [np.sum(s[:k] ** 2) / np.sum(s**2) for k, s in zip(ranks, spectra, strict=True)]
        return np.prod(shares)

    ranks = allot(spectra, shapes, budget)
    choices = [[None, *range(1, largest(*shape) + 1)] for shape in shapes]
    assert weights(ranks) <= limit
    assert all(rank in choice for rank, choice in zip(ranks, choices, strict=True))
    best = max(kept(tried) for tried in itertools.product(*choices) if weights(tried) <= limit)
    assert kept(ranks) >= 0.85 * best


def test_allot_takes_from_the_matrix_that_has_less_to_lose():
    flat, steep = np.ones(10), 10.0 ** -np.arange(10)
    assert allot([flat, steep], [(10, 10), (10, 10)], 0.6) == [None, 1]
    assert allot([flat, steep], [(10, 10), (10, 10)], 0.3) == [2, 1]
    assert allot([np.zeros(10), steep], [(10, 10), (10, 10)], 0.3) == [1, 2]


def test_a_small_matrix_that_would_save_nothing_stays_whole():
    small, large = np.ones(9), 0.9 ** np.arange(128)
    assert largest(9, 32) == 7  # 287 of 288 weights for 7 of 9 directions.
    ranks = allot([small, large], [(9, 32), (3136, 128)], 0.5)
    assert ranks[0] is None
    # The rest of the budget is used up to less than a rank.
    assert 0 <= 0.5 * (288 + 401_408) - 288 - ranks[1] * 3264 < 3264


def test_too_small_a_budget_says_the_smallest():
    with pytest.raises(ValueError, match=r"`budget`=0.1 is too small: .* hold 0.2000 of the 100"):
        allot([np.ones(10)], [(10, 10)], 0.1)
