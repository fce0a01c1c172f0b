"""The entropy coders: what goes in comes out, in about as many bits as the entropy."""

import math
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_robust.compress.packed import _context, _huffman, _mixer, _rans
from keras_robust.compress.packed._binary import ONE, Decoder, Encoder
from keras_robust.compress.packed._bytes import Damaged, Reader, piece, varint
from keras_robust.compress.packed._stages import entropy, huffman_bits, stages

pytestmark = pytest.mark.once

seven = st.integers(0, 6)
few = settings(max_examples=20, deadline=None)


def skewed(rng, count, alphabet, strength=0.2):
    return rng.choice(alphabet, count, p=rng.dirichlet(np.full(alphabet, strength)))


def limit(symbols):
    """Bytes that the empirical entropy asks for."""
    return entropy(symbols) * symbols.size / 8


@few
@given(st.lists(st.integers(0, 1 << 62)))
def test_numbers_come_back(numbers):
    reader = Reader(b"".join(varint(n) for n in numbers) + piece(b"end"))
    assert [reader.number() for _ in numbers] == numbers
    assert reader.piece() == b"end"
    reader.end()


def test_a_reader_never_runs_off_the_end():
    with pytest.raises(Damaged, match="5 bytes are announced, 2 are left"):
        Reader(b"ab").take(5)
    with pytest.raises(Damaged, match="does not end"):
        Reader(b"\xff" * 20).number()
    with pytest.raises(Damaged, match="2 bytes are left over"):
        Reader(b"ab").end()


@few
@given(st.lists(st.tuples(st.booleans(), st.integers(1, ONE - 1)), max_size=300))
def test_bits_come_back_in_their_cost(pairs):
    bits = np.array([bit for bit, _ in pairs], np.int64)
    chances = np.array([chance for _, chance in pairs], np.int64)
    coder = Encoder()
    coder.code(bits, chances)
    content = coder.finish()
    np.testing.assert_array_equal(Decoder(content).code(None, chances), bits)
    cost = -np.log2(np.where(bits, chances, ONE - chances) / ONE).sum() / 8
    assert len(content) <= 1.01 * cost + 2


def test_a_carry_runs_through_bytes_of_255():
    # Zeros of nearly no cost first, so that the low end stands just below a power of two.
    chances = np.array([1] * 3000 + [ONE - 1, 1, 30000] * 500)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        bits = (rng.random(chances.size) < 0.5).astype(np.int64)
        coder = Encoder()
        coder.code(bits, chances)
        np.testing.assert_array_equal(Decoder(coder.finish()).code(None, chances), bits)


@pytest.mark.parametrize("coder", [_rans, _huffman])
@few
@given(hnp.arrays(np.int64, st.integers(0, 400), elements=st.integers(0, 40)))
def test_symbols_come_back(coder, symbols):
    reader = Reader(coder.encode(symbols, 41) + b"after")
    np.testing.assert_array_equal(coder.decode(reader, symbols.size, 41), symbols)
    assert reader.take(5) == b"after"


@pytest.mark.parametrize(
    ("count", "alphabet", "strength"),
    [(60_000, 2, 1.0), (60_000, 64, 0.1), (60_000, 256, 100.0), (60_000, 5_000, 1.0)],
)
def test_symbols_cost_their_entropy(rng, count, alphabet, strength):
    symbols = skewed(rng, count, alphabet, strength)
    content = _rans.encode(symbols, alphabet)
    np.testing.assert_array_equal(_rans.decode(Reader(content), count, alphabet), symbols)
    # Besides its table, a byte a symbol.
    assert limit(symbols) <= len(content) - alphabet <= 1.005 * limit(symbols) + 16


def test_one_symbol_costs_its_table_alone():
    assert len(_rans.encode(np.full(10**6, 3), 5)) == 5


@pytest.mark.parametrize("coder", [_rans, _huffman])
@few
@given(st.binary(max_size=200), st.integers(0, 100), st.integers(1, 20))
def test_symbols_from_noise_are_refused_or_in_range(coder, noise, count, alphabet):
    try:
        symbols = coder.decode(Reader(noise), count, alphabet)
    except Damaged:
        return
    assert symbols.size == count
    assert not count or (symbols.min() >= 0 and symbols.max() < alphabet)


@few
@given(
    hnp.arrays(
        np.int64, st.tuples(st.integers(1, 30), st.integers(1, 30)), elements=st.integers(0, 6)
    ),
    st.sampled_from([None, 0, 3, 6]),
)
def test_indices_in_context_come_back(indices, zero):
    content = _context.encode(indices, 7, zero)
    np.testing.assert_array_equal(_context.decode(content, indices.shape, 7, zero), indices)


def test_context_without_structure_costs_the_entropy(rng):
    indices = skewed(rng, 60_000, 16, 0.3).reshape(300, 200)
    size = len(_context.encode(indices, 16, int(np.bincount(indices.ravel()).argmax())))
    assert limit(indices) * 0.99 < size < 1.02 * limit(indices)


def test_context_finds_structure(rng):
    # Rows and columns of their own density, and each row like the one 28 before.
    base = rng.random((28, 60)) < rng.random(60) * rng.random((28, 1))
    flags = np.tile(base, (10, 1)) ^ (rng.random((280, 60)) < 0.05)
    size = len(_context.encode(flags.astype(np.int64), 2, 0))
    assert 28 in _context._distances(flags)
    assert size < 0.6 * limit(flags)


def test_the_mixer_is_the_same_on_every_machine():
    # Rounded from floats: nothing may lie near a tie, where two machines could differ.
    exact = [256 * math.log(n + 0.4) for n in range(_mixer.LOGARITHM.size)]
    assert min(abs(value % 1 - 0.5) for value in exact) > 1e-9
    exact = [ONE / (1 + math.exp(-x / 256)) for x in range(-2816, 2817)]
    assert min(abs(value % 1 - 0.5) for value in exact) > 1e-9
    tables = (_mixer.LOGARITHM, _mixer.CHANCE)
    assert [zlib.crc32(t.astype("<i4").tobytes()) for t in tables] == [2486901726, 2670100308]


def test_canonical_words_of_the_rfc():
    """The example of RFC 1951, section 3.2.2: symbols A to H."""
    words = _huffman._words(np.array([3, 3, 3, 3, 3, 2, 4, 4]))
    assert [f"{word:b}" for word in words] == ["10", "11", "100", "101", "110", "0", "1110", "1111"]


@pytest.mark.parametrize(("count", "alphabet"), [(1, 3), (2, 3), (400, 16), (5000, 300)])
def test_huffman_takes_its_bits_and_half_a_byte_a_symbol(rng, count, alphabet):
    symbols = skewed(rng, count, alphabet)
    content = _huffman.encode(symbols, alphabet)
    np.testing.assert_array_equal(_huffman.decode(Reader(content), symbols.size, alphabet), symbols)
    table = -(-alphabet // 2)
    if np.unique(symbols).size == 1:
        assert len(content) == table
    else:
        stream = -(-huffman_bits(symbols) // 8)
        assert len(content) == table + len(varint(stream)) + stream


def test_words_are_no_longer_than_a_nibble_says():
    """Counts after Fibonacci's have the longest words, of 24 bits here without a limit."""
    counts = [1, 1]
    while len(counts) < 25:
        counts.append(counts[-1] + counts[-2])
    assert _huffman.lengths(np.array(counts)).max() == 24
    symbols = np.repeat(np.arange(25), counts)
    content = _huffman.encode(symbols, 25)
    decoded = _huffman.decode(Reader(content), symbols.size, 25)
    np.testing.assert_array_equal(decoded, symbols)
    assert len(content) < 1.001 * huffman_bits(symbols) / 8 + 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(2), "no symbol has a word"),
        (b"\x00\x01", "no symbol has a word"),  # Of a fourth symbol, where there are three.
        (b"\x11\x10\x01\x00", "do not fit together"),
        (b"\x12\x00\x01\x00", "do not fit together"),
        (b"\x12\x20\x01\x00", None),  # Eight times the first.
        (b"\x12\x20\x01\x01", "does not end as it began"),
        (b"\x12\x20\x02\x00\x00", "does not end as it began"),
        (b"\x12\x20\x01\xff", "ends early"),
        (b"\x12\x20\x00", "ends early"),
    ],
)
def test_huffman_codes_that_none_wrote_are_refused(content, message):
    if message is None:
        assert _huffman.decode(Reader(content), 8, 3).tolist() == [0] * 8
        return
    count = 5 if content[-1] == 1 else 8
    with pytest.raises(Damaged, match=message):
        _huffman.decode(Reader(content), count, 3)


def test_huffman_by_hand():
    # The code of 5, 2, 1, 1 occurrences has lengths 1, 2, 3, 3.
    assert huffman_bits(np.array([7] * 5 + [1] * 2 + [2, 3])) == 5 + 4 + 6
    assert huffman_bits(np.zeros(9)) == 9


def test_stages_by_hand():
    values = np.zeros(100, np.float32)
    values[[0, 40, 41]] = [1.0, 2.0, 1.0]
    found = stages(values)
    # Gaps 0, 39, 0; one filler after 32 steps, so four entries of 5 + 32 bits.
    assert found["sparse"] == math.ceil(4 * 37 / 8)
    # Three values with the filler's zero: two bits an index, and the codebook.
    assert found["codebook"] == min(found["sparse"], math.ceil(4 * 7 / 8) + 12)
    shares = np.array([0.97, 0.02, 0.01])
    assert found["entropy"] == math.ceil(-(shares * np.log2(shares)).sum() * 100 / 8)
    assert found["dense"] == 400


def test_the_rate_of_a_codebook_as_the_paper_counts_it():
    """Figure 3: 16 weights of 32 bits in 4 clusters are 3.2 times as many bits, and no gaps."""
    values = np.repeat(np.float32([-0.98, 0.09, 1.48, 2.09]), 4)
    found = stages(values)
    assert 8 * found["dense"] == 16 * 32 and 8 * found["codebook"] == 4 * 32 + 16 * 2
    assert found["dense"] / found["codebook"] == 3.2
