"""Masks by size: as counted, as grouped by hand, the same as TF-MOT's."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_robust.compress import _magnitude as magnitude


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 7), st.floats(0, 0.999), st.integers(0, 99))
def test_a_layer_keeps_the_largest_and_at_least_one(rows, columns, sparsity, seed):
    values = np.random.default_rng(seed).integers(-3, 4, (rows, columns)).astype("float32")
    mask = magnitude.layer_mask(values, sparsity)
    assert mask.sum() == max(round(values.size * (1 - sparsity)), 1)
    if not mask.all():
        assert np.abs(values[mask]).min() >= np.abs(values[~mask]).max()


def test_one_threshold_over_all_layers_and_none_is_emptied():
    kernels = {"a": np.array([[5.0, -4.0, 3.0]]), "b": np.array([[0.1], [0.2]]), "c": np.eye(2)}
    masks = magnitude.global_masks(kernels, 1 - 4 / 9)
    assert masks["a"].tolist() == [[True, True, True]]
    assert masks["c"].tolist() == [[True, False], [False, False]]
    # Nothing of it is among the four largest.
    assert masks["b"].tolist() == [[False], [True]]


def test_blocks_go_as_a_whole_by_mean_or_maximum():
    values = np.array([[1.0, 1.0, 3.0], [1.0, 1.0, 0.0], [0.0, 0.9, 0.5]])
    # Means of the blocks, the smaller ones at the edge too: 1, 1.5; 0.45, 0.5.
    by_mean = magnitude.block_mask(values, 0.5, (2, 2))
    assert by_mean.tolist() == [[True] * 3, [True] * 3, [False] * 3]
    # Maxima: 1, 3; 0.9, 0.5.
    by_max = magnitude.block_mask(values, 0.75, (2, 2), "max")
    assert by_max.tolist() == [[False, False, True], [False, False, True], [False] * 3]
    assert magnitude.zero_blocks(values * by_max, (2, 2)) == (3, 4)


def test_two_of_four_along_the_input_channels(rng):
    values = rng.normal(size=(3, 3, 6, 2))
    pruned = values * magnitude.pattern_mask(values, (2, 4))
    assert magnitude.bad_groups(pruned, (2, 4)) == 0
    assert magnitude.bad_groups(values, (2, 4)) == 3 * 3 * 2  # The last, padded groups hold two.
    # The first group of a position keeps its two largest, the last one both that it has.
    kept = np.abs(values[0, 0, :4, 0]) >= np.sort(np.abs(values[0, 0, :4, 0]))[2]
    np.testing.assert_array_equal(pruned[0, 0, :4, 0] != 0, kept)
    np.testing.assert_array_equal(pruned[..., 4:, :], values[..., 4:, :])
