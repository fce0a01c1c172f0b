"""Weights come back bit for bit, each in the smallest form."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_robust.compress.packed import _huffman, _rans, _tensor
from keras_robust.compress.packed._bytes import Damaged, Reader
from keras_robust.compress.packed._stages import entropy

pytestmark = pytest.mark.once

few = settings(max_examples=20, deadline=None)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)
DTYPES = ["float32", "float16", "float64", "int8", "uint8", "int32", "int64", "uint32", "bool"]


def back(values):
    coded = _tensor.encode(values)
    got = _tensor.decode(coded, values.dtype, values.shape)
    assert got.dtype == values.dtype
    assert got.shape == values.shape
    assert got.tobytes() == values.tobytes()
    return len(coded)


@few
@given(st.data(), st.sampled_from(DTYPES))
def test_anything_comes_back(data, dtype):
    back(data.draw(hnp.arrays(dtype, SHAPES)))


@few
@given(st.data(), st.integers(1, 6))
def test_few_values_come_back(data, count):
    book = data.draw(hnp.arrays(np.float32, count))
    indices = data.draw(hnp.arrays(np.int64, SHAPES, elements=st.integers(0, count - 1)))
    back(book[indices])


def test_nan_infinity_and_negative_zero_come_back():
    odd = np.array([0x7FC00001, 0xFFC12345, 0x7F800000, 0xFF800000, 0x80000000, 0, 1], np.uint32)
    back(odd.view(np.float32))
    back(np.tile(odd, 50).reshape(25, 14).view(np.float32))
    back(np.tile(odd, 50).view(np.float32) * np.float32(1))


def test_bfloat16_comes_back(rng):
    back(rng.normal(size=(30, 20)).astype(tf.bfloat16.as_numpy_dtype))


def test_order_of_bits_is_that_of_the_numbers(rng):
    for dtype in ("float32", "float16", "int8", "uint8"):
        values = (rng.normal(size=500) * 50).astype(dtype)
        keys = _tensor._ordered(_tensor._bits(values), values.dtype)
        np.testing.assert_array_equal(values[np.argsort(keys)], np.sort(values))
        bits = _tensor._unordered(keys, values.dtype)
        np.testing.assert_array_equal(bits.view(dtype), values)


def test_binary_weights_cost_a_bit(rng):
    values = np.where(rng.random((300, 400)) < 0.5, -1, 1).astype(np.float32)
    assert back(values) <= 1.002 * values.size / 8 + 40
    # And less than one where the signs are not even.
    values = np.where(rng.random((300, 400)) < 0.1, -1, 1).astype(np.float32)
    assert back(values) <= 1.02 * values.size / 8 * entropy(values) + 40


def test_int8_values_cost_their_entropy(rng):
    codes = np.clip(np.round(rng.normal(size=(200, 300)) * 30), -127, 127)
    values = (codes * 0.0123).astype(np.float32)
    assert back(values) <= 1.02 * values.size / 8 * entropy(values) + 4 * 255


def test_pruned_and_clustered_weights_stay_within_3_percent(rng):
    book = rng.normal(size=33).astype(np.float32)
    values = np.where(rng.random((400, 300)) < 0.08, book[rng.integers(0, 33, (400, 300))], 0)
    values = values.astype(np.float32)
    assert back(values) <= 1.03 * values.size / 8 * entropy(values) + 4 * 34


def test_pruned_weights_take_places_and_values(rng):
    values = np.where(rng.random((200, 300)) < 0.1, rng.normal(size=(200, 300)), 0)
    values = values.astype(np.float32)
    places = 60_000 / 8 * entropy(values != 0)
    assert back(values) <= 1.03 * places + 4 * np.count_nonzero(values)


def test_a_small_pruned_kernel_takes_them_too(rng):
    """840 weights, of which some 250 stay: their values, and a sixth of that for the places."""
    values = rng.normal(size=(84, 10)).astype("float32")
    values[rng.uniform(size=values.shape) > 0.3] = 0.0
    content = _tensor.encode(values)
    assert content[0] == _tensor._SPARSE
    assert len(content) < 4 * np.count_nonzero(values) * 7 / 6
    np.testing.assert_array_equal(_tensor.decode(content, values.dtype, values.shape), values)


def test_a_tall_kernel_of_two_columns_comes_back():
    """Its few contexts are seen more often than each of the planes that share them."""
    generator = np.random.default_rng(6)
    values = generator.normal(size=(16384, 2)).astype("float32")
    order = np.argsort(-np.abs(values), axis=None, kind="stable")
    values.reshape(-1)[order[983:]] = 0.0
    assert back(values) < 983 * 6


def test_half_precision_takes_two_bytes(rng):
    values = rng.normal(size=1000).astype(np.float16).astype(np.float32)
    assert back(values) <= 2010


def test_short_streams_are_in_huffmans_code(rng):
    """Where tables count and nothing can be learned: 288 weights of 16 values."""
    book = rng.normal(size=16).astype("float32")
    values = book[rng.binomial(15, 0.5, (9, 32))]
    content = _tensor.encode(values)
    back(values)
    indices = np.unique(values, return_inverse=True)[1].reshape(values.shape)
    taken = _tensor._indices(indices, np.unique(values).size)
    assert content.endswith(taken) and taken[0] == _tensor._HUFFMAN


@pytest.mark.parametrize(("way", "coder"), [("_GAPS", _rans), ("_HUFFMAN_GAPS", _huffman)])
def test_gaps_come_back_in_either_code(rng, way, coder):
    flat = np.where(rng.random(900) < 0.05, rng.integers(0, 9, 900), 4)
    content = bytes([getattr(_tensor, way)]) + _tensor._gaps(flat, 9, 4, coder)
    np.testing.assert_array_equal(_tensor._read_indices(Reader(content), (30, 30), 9), flat)


def test_gaps_longer_than_a_byte():
    flat = np.zeros(3000, np.int64)
    flat[[0, 255, 511, 1300, 2999]] = [1, 2, 1, 2, 2]
    coded = _tensor._gaps(flat, 3, 0)
    np.testing.assert_array_equal(_tensor._read_gaps(Reader(coded), 3000, 3), flat)


@few
@given(st.binary(min_size=1, max_size=300), st.sampled_from(["float32", "int8"]))
def test_noise_is_refused_or_a_weight(noise, dtype):
    try:
        got = _tensor.decode(noise, np.dtype(dtype), (20, 10))
    except Damaged:
        return
    assert got.shape == (20, 10)
    assert got.dtype == dtype


def test_every_byte_of_a_weight_may_be_wrong(rng):
    values = np.where(rng.random((20, 15)) < 0.2, rng.integers(1, 5, (20, 15)), 0)
    coded = bytearray(_tensor.encode(values.astype(np.float32)))
    for at in range(len(coded)):
        for wrong in (coded[at] ^ 255,):
            broken = bytes(coded[:at]) + bytes([wrong]) + bytes(coded[at + 1 :])
            try:
                got = _tensor.decode(broken, np.dtype("float32"), (20, 15))
            except Damaged:
                continue
            assert got.shape == (20, 15)


def test_unknown_forms_are_named():
    with pytest.raises(Damaged, match="unknown way 9"):
        _tensor.decode(b"\x09", np.dtype("float32"), (2,))
