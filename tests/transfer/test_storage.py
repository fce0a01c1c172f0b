"""Embeddings written and read back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_robust.transfer import (
    load_embeddings,
    load_projection,
    low_dimensional_embedding,
    save_embeddings,
    save_projection,
)

pytestmark = pytest.mark.once


@pytest.fixture
def z(rng):
    """Of rank 3 but for noise, as float32."""
    rows = (rng.normal(size=(400, 3)) * [4, 2, 1]) @ rng.normal(size=(3, 64))
    return (rows + 0.01 * rng.normal(size=rows.shape) + 1.0).astype("float32")


def test_without_rounding_what_is_read_is_the_projection(z, tmp_path):
    stored = save_embeddings(tmp_path / "z.kre", z, 3, bits=32)
    fitted = low_dimensional_embedding(z, 3)
    again = load_embeddings(tmp_path / "z.kre")
    np.testing.assert_array_equal(again, fitted.back(fitted(z)))
    assert again.shape == z.shape and again.dtype == np.float32
    assert stored.error == pytest.approx(np.linalg.norm(again - z) / np.linalg.norm(z))


def test_full_rank_comes_back_whole(rng, tmp_path):
    z = rng.normal(size=(20, 5))
    save_embeddings(tmp_path / "z.kre", z, 5, bits=32)
    np.testing.assert_allclose(load_embeddings(tmp_path / "z.kre"), z, atol=1e-5)


def test_more_bits_less_error_more_bytes(z, tmp_path):
    stored = [save_embeddings(tmp_path / "z.kre", z, 3, bits=bits) for bits in (2, 4, 8, 16)]
    errors, sizes = [s.error for s in stored], [s.bytes for s in stored]
    assert errors == sorted(errors, reverse=True) and sizes == sorted(sizes)
    assert errors[0] < 0.7 and errors[2] < 0.03
    for one in stored[-1:]:
        assert one.bytes == (tmp_path / "z.kre").stat().st_size
        assert one.original_bytes == z.size * 4
        assert one.factor == one.original_bytes / one.bytes
        assert f"{one.bytes:,} bytes on disk (with its basis)" in str(one)


@pytest.mark.parametrize("bits", [8, 16])
def test_rounding_is_to_multiples_of_one_step(rng, tmp_path, bits):
    z = rng.uniform(-1, 1, size=(300, 2)) * [8, 1]
    path = tmp_path / "z.kre"
    save_embeddings(path, z, 2, bits=bits)
    coordinates = load_embeddings(path, coordinates=True)
    exact = low_dimensional_embedding(z, 2)(z)
    step = np.abs(exact).max() / (2 ** (bits - 1) - 1)
    assert np.abs(coordinates - exact).max() <= 0.51 * step
    assert len(np.unique(coordinates[:, 1])) < 2 ** (bits - 2)


@pytest.mark.parametrize("codec", ["none", "zlib", "lzma", "auto"])
def test_packing_changes_the_bytes_alone(z, tmp_path, codec):
    stored = save_embeddings(tmp_path / "z.kre", z, 3, codec=codec)
    again = load_embeddings(tmp_path / "z.kre")
    plain = save_embeddings(tmp_path / "plain.kre", z, 3, codec="none")
    np.testing.assert_array_equal(again, load_embeddings(tmp_path / "plain.kre"))
    assert stored.bytes <= plain.bytes + 100
    if codec == "auto":
        assert stored.bytes < plain.bytes


def test_one_basis_for_many_files(z, tmp_path):
    fitted = low_dimensional_embedding(z, 3)
    size = save_projection(tmp_path / "basis.kre", fitted)
    assert size == (tmp_path / "basis.kre").stat().st_size
    shared = load_projection(tmp_path / "basis.kre")
    np.testing.assert_array_equal(shared.basis, fitted.basis)
    assert (shared.method, shared.kept) == ("pca", fitted.kept)
    for part, name in ((z[:300], "a.kre"), (z[300:], "b.kre")):
        stored = save_embeddings(tmp_path / name, part, projection=shared, bits=16)
        again = load_embeddings(tmp_path / name, load_projection(tmp_path / "basis.kre"))
        np.testing.assert_allclose(again, shared.back(shared(part)), atol=2e-3)
        assert stored.basis_bytes == 0 and "basis kept elsewhere" in str(stored)
    whole = save_embeddings(tmp_path / "c.kre", z[:300], 3, bits=16)
    assert whole.bytes > (tmp_path / "a.kre").stat().st_size + 600


def test_a_projection_may_hold_more_than_a_file_keeps(z, tmp_path):
    fitted = low_dimensional_embedding(z, 8)
    save_projection(tmp_path / "first.kre", fitted.first(2))  # its share is not known
    assert np.isnan(load_projection(tmp_path / "first.kre").kept)
    save_embeddings(tmp_path / "z.kre", z, rank=2, projection=fitted, bits=32)
    first = fitted.first(2)
    again = load_embeddings(tmp_path / "z.kre", fitted)
    np.testing.assert_array_equal(again, first.back(first(z)))
    assert load_embeddings(tmp_path / "z.kre", coordinates=True).shape == (400, 2)


def test_four_hundred_times_smaller(rng, tmp_path):
    rows = rng.normal(size=(2000, 8)) * np.geomspace(4, 1, 8)
    z = (rows @ rng.normal(size=(8, 512))).astype("float32")
    stored = save_embeddings(
        tmp_path / "z.kre", z, projection=low_dimensional_embedding(z, 8), bits=4
    )
    assert stored.factor > 400 and stored.error < 0.25


def test_constant_embeddings_are_stored(tmp_path):
    save_embeddings(tmp_path / "z.kre", np.full((9, 4), 2.0), 1)
    np.testing.assert_array_equal(load_embeddings(tmp_path / "z.kre"), np.full((9, 4), 2.0))


def test_every_damage_is_noticed(z, tmp_path):
    path = tmp_path / "z.kre"
    save_embeddings(path, z[:20], 2)
    content = path.read_bytes()
    for place in range(8, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ValueError, match="is damaged or cut off"):
            load_embeddings(path)
    for length in (9, 40, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="is damaged or cut off"):
            load_embeddings(path)
    path.write_bytes(content + b"x")
    with pytest.raises(ValueError, match="is damaged or cut off"):
        load_embeddings(path)


def test_other_files_are_refused(z, tmp_path):
    other = tmp_path / "other"
    for content in (b"", b"KR", b"PK\x03\x04 and so on"):
        other.write_bytes(content)
        with pytest.raises(ValueError, match="was not written by|is damaged"):
            load_embeddings(other)
    with pytest.raises(ValueError, match="cannot read"):
        load_embeddings(tmp_path / "missing")
    save_projection(other, low_dimensional_embedding(z, 2))
    with pytest.raises(ValueError, match="holds a projection, but embeddings are to be read"):
        load_embeddings(other)


def test_a_failure_leaves_what_was_there(z, tmp_path, monkeypatch):
    path = tmp_path / "z.kre"
    save_embeddings(path, z, 2)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="`bits` must be one of"):
        save_embeddings(path, z, 2, bits=7)
    monkeypatch.setattr("os.replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_embeddings(path, z, 3)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_wrong_input_says_what_to_do(z, tmp_path):
    path, fitted = tmp_path / "z.kre", low_dimensional_embedding(z, 2)
    for call, error, message in [
        (lambda: save_embeddings(path, z), ValueError, "`rank` is missing"),
        (lambda: save_embeddings(path, z, 2, codec="zip"), ValueError, "`codec` must be one of"),
        (lambda: save_embeddings(path, z, 99), ValueError, r"`k` must be .* in \[1, 64\]"),
        (lambda: save_embeddings(path, z, projection=3), TypeError, "`projection` must come from"),
        (lambda: save_projection(path, np.eye(3)), TypeError, "`projection` must come from"),
    ]:
        with pytest.raises(error, match=message):
            call()
    assert not path.exists()
    save_embeddings(path, z, projection=fitted)
    with pytest.raises(ValueError, match="`projection` is missing"):
        load_embeddings(path)
    other = low_dimensional_embedding(z[:100], 2)
    with pytest.raises(ValueError, match="`projection` is not the one"):
        load_embeddings(path, other)


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 9),
    features=st.integers(1, 7),
    bits=st.sampled_from([2, 4, 8, 16, 32]),
    codec=st.sampled_from(["none", "zlib", "lzma", "auto"]),
    scale=st.sampled_from([0.0, 1e-6, 1.0, 1e6]),
    seed=st.integers(0, 9),
)
def test_whatever_is_written_is_read(tmp_path_factory, rows, features, bits, codec, scale, seed):
    path = tmp_path_factory.mktemp("any") / "z.kre"
    z = scale * np.random.default_rng(seed).normal(size=(rows, features))
    rank = min(rows, features)
    stored = save_embeddings(path, z, rank, bits=bits, codec=codec)
    again = load_embeddings(path)
    assert again.shape == z.shape and again.dtype == np.float32
    exact = low_dimensional_embedding(z, rank)
    error = np.linalg.norm(load_embeddings(path, coordinates=True) - exact(z))
    # Never worse than to leave the coordinates out.
    assert error <= np.linalg.norm(exact(z)) + 1e-6 * scale
    if bits >= 16:
        np.testing.assert_allclose(again, z, atol=1e-3 * scale)
    assert stored.error <= 1.0 + 1e-6
