"""`kr.data.load` on .npz files."""

import numpy as np
import pytest

from keras_robust.data import arrays, load

pytestmark = pytest.mark.once

X = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3), np.uint8)
Y = np.arange(20) % 2


def save(tmp_path, **found):
    np.savez(tmp_path / "a.npz", **found)
    return tmp_path / "a.npz"


def test_given_split_and_class_names(tmp_path):
    path = save(
        tmp_path, x_train=X, y_train=Y, x_test=X[:7], y_test=Y[:7, None], class_names=["a", "b"]
    )
    data = load(str(path), batch_size=4)
    x, y = arrays(data.test)
    np.testing.assert_array_equal(x, X[:7].astype(np.float32) / 255)
    np.testing.assert_array_equal(y, Y[:7])
    assert data.class_names == ("a", "b")


@pytest.mark.parametrize("keys", [("x", "y"), ("x_train", "y_train")])
def test_a_seeded_stratified_split_makes_the_test_set(tmp_path, keys):
    path = save(tmp_path, **{keys[0]: X, keys[1]: Y})
    data = load(path, batch_size=None, test_fraction=0.3)
    train, test = arrays(data.train), arrays(data.test)
    assert np.bincount(train[1]).tolist() == [7, 7] and np.bincount(test[1]).tolist() == [3, 3]
    images = {x.tobytes() for x in [*train[0], *test[0]]}
    assert images == {x.tobytes() for x in X.astype(np.float32) / 255}
    assert data.class_names == ("0", "1")
    again = arrays(load(path, batch_size=None, test_fraction=0.3).test)
    np.testing.assert_array_equal(test[0], again[0])
    other = arrays(load(path, batch_size=None, test_fraction=0.3, seed=1).test)
    assert not np.array_equal(test[0], other[0])


def test_floats_stay_and_grey_gets_a_channel(tmp_path):
    x = X[..., 0].astype(np.float64) / 255
    data = load(save(tmp_path, x_train=x, y_train=Y, x_test=x, y_test=Y), batch_size=4)
    assert data.input_shape == (6, 6, 1)
    np.testing.assert_array_equal(arrays(data.test)[0], x[..., None].astype(np.float32))


def test_names_of_classes_without_images_count(tmp_path):
    path = save(tmp_path, x=X, y=Y, class_names=np.array([b"a", b"b", b"c"]))
    assert load(path, batch_size=4).class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    "found, message",
    [
        ({"x": X}, r"has no array `y`; it holds \['x'\]. Save it with x_train, y_train"),
        ({"images": X}, r"has no array `x`; it holds \['images'\]"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "has no array `y_test`"),
        ({"x": X, "y": Y[:5]}, "`x` and `y` of .*a.npz must have the same length, got 20 and 5"),
        ({"x": X.astype(int), "y": Y}, r"`x` of .* must be uint8 .* got dtype int64"),
        ({"x": X.astype(float), "y": Y}, r"must lie in \[0, 1\], got values in \[0, 255\]"),
        ({"x": X * np.nan, "y": Y}, r"must lie in \[0, 1\], got values in \[nan, nan\]"),
        ({"x": X[:, 0, 0], "y": Y}, r"must be images of shape .* got shape \(20, 3\)"),
        ({"x": X[:0], "y": Y[:0]}, r"at least one of them; got shape \(0, 6, 6, 3\)"),
        ({"x": X.transpose(0, 3, 1, 2), "y": Y}, "looks channels first"),
        ({"x": X, "y": Y * 1.0}, "must hold whole class numbers .* got dtype float64"),
        ({"x": X, "y": np.array(["a", "b"] * 10)}, "names of classes go into `class_names`"),
        ({"x": X, "y": np.eye(2, dtype=int)[Y]}, r"got shape \(20, 2\). Turn one-hot rows into"),
        ({"x": X, "y": Y - 1}, "must be >= 0, got -1. Number the classes from 0"),
        ({"x": X, "y": Y * 0}, r"holds only one class \(0\)"),
        ({"x": X, "y": Y, "class_names": ["a"]}, "labels up to 1, but only 1 class names"),
        ({"x": X, "y": Y, "class_names": [1, 2]}, "must be an array of strings"),
        ({"x": X, "y": np.arange(20)}, "class 0 has 1 image, but a split"),
        (
            {"x_train": X, "y_train": Y, "x_test": X[:, :4], "y_test": Y},
            r"must hold images of one shape, got \(6, 6, 3\) and \(4, 6, 3\)",
        ),
    ],
)
def test_wrong_contents(tmp_path, found, message):
    with pytest.raises(ValueError, match=message):
        load(save(tmp_path, **found), batch_size=4)


def test_objects_are_never_unpickled(tmp_path):
    path = save(tmp_path, x=X, y=np.array([{"a": 1}] * 20, object))
    with pytest.raises(ValueError, match="could not be read as an .npz.*never unpickled"):
        load(path)


def test_damaged_files(tmp_path):
    whole = save(tmp_path, x=X, y=Y).read_bytes()
    flipped = bytearray(whole)
    flipped[600] ^= 255
    np.save(tmp_path / "single.npy", X)
    for content in (b"", b"no zip", whole[:1000], flipped, (tmp_path / "single.npy").read_bytes()):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ValueError, match="bad.npz could not be read as an .npz file"):
            load(tmp_path / "bad.npz")
