"""`kr.data.load` on the embedded data, its settings, and `arrays`."""

import importlib.util
import os
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.data import Data, arrays, load
from keras_robust.data._load import EMBEDDED

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]


def write(path, n=40, classes=2, **extra):
    """An .npz in which pixel (0, 0) of each image is its number."""
    x = np.zeros((n, 5, 4, 1), np.uint8)
    x[:, 0, 0, 0] = np.arange(n)
    np.savez(path, x=x, y=np.arange(n) % classes, **extra)
    return path


def numbers(dataset):
    return np.round(arrays(dataset)[0][:, 0, 0, 0] * 255).astype(int).tolist()


def test_embedded_is_balanced_fashion_mnist():
    data = load()
    assert isinstance(data, Data)
    assert data.input_shape == (28, 28, 1) and data.classes == 10
    assert data.class_names[0] == "T-shirt/top" and data.class_names[9] == "Ankle boot"
    image, label = data.train.element_spec
    assert image.shape == (128, 28, 28, 1) and image.dtype == tf.float32
    assert label.shape == (128,) and label.dtype == tf.int32
    assert int(data.train.cardinality()) == 12000 // 128
    x, y = arrays(data.test)
    assert x.shape == (2000, 28, 28, 1) and x.min() == 0 and x.max() == 1
    assert np.bincount(y).tolist() == [200] * 10
    assert np.bincount(y[:100]).tolist() == [10] * 10
    with np.load(EMBEDDED) as raw:
        assert np.bincount(raw["y_train"]).tolist() == [1200] * 10
        np.testing.assert_array_equal(x[..., 0], raw["x_test"].astype(np.float32) / 255)
        np.testing.assert_array_equal(y, raw["y_test"])
        both = np.concatenate([raw["x_train"], raw["x_test"]]).reshape(14000, -1)
    assert len(np.unique(both, axis=0)) > 13990  # no image is drawn twice
    # The mean of all of Fashion-MNIST is 72.940.
    assert abs(both.mean() - 72.94) < 1


def test_embedded_file_is_small_and_has_its_licence():
    assert EMBEDDED.stat().st_size <= 8_000_000
    licence = EMBEDDED.with_name("FASHION_MNIST_LICENSE.txt").read_text(encoding="utf-8")
    assert "Copyright © 2017 Zalando SE" in licence and "The MIT License" in licence
    with zipfile.ZipFile(EMBEDDED) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.fixture
def script():
    path = ROOT / "scripts" / "make_embedded_data.py"
    if not path.exists():
        pytest.skip("the scripts are not part of an installed package")
    spec = importlib.util.spec_from_file_location("make_embedded_data", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_chooses_the_embedded_images(script):
    folder = Path(os.environ.get("KERAS_ROBUST_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "fashion_mnist.npz").exists():
        pytest.skip("needs fashion_mnist.npz in KERAS_ROBUST_DATA or ../shared/data")
    rng = np.random.default_rng(0)
    with np.load(folder / "fashion_mnist.npz") as source, np.load(EMBEDDED) as shipped:
        for split, count in (("train", 12_000), ("test", 2_000)):
            order = script.balanced_order(source[f"y_{split}"], count, rng)
            for key in (f"x_{split}", f"y_{split}"):
                np.testing.assert_array_equal(source[key][order], shipped[key])


def test_the_script_repeats_byte_for_byte(script, tmp_path, monkeypatch):
    x, y = np.random.default_rng(0).integers(0, 256, (60, 4, 4), np.uint8), np.arange(60) % 10
    np.savez(tmp_path / "all.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    written = []
    for i, now in enumerate((1e9, 1.5e9)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        target = tmp_path / f"{i}.npz"
        sizes = ["--train", "20", "--test", "10"]
        script.main([str(tmp_path / "all.npz"), "--target", str(target), *sizes])
        written.append(target.read_bytes())
    assert written[0] == written[1]
    y = arrays(load(target, batch_size=4).test)[1]
    assert sorted(y) == list(range(10))
    with pytest.raises(ValueError, match="`count` must be a multiple of 10, got 15"):
        script.balanced_order(np.arange(60) % 10, 15, np.random.default_rng(0))
    with pytest.raises(ValueError, match="class 0 has 6 images, 7 are needed"):
        script.balanced_order(np.arange(60) % 10, 70, np.random.default_rng(0))


def test_train_is_reshuffled_each_epoch_and_repeats_by_seed(tmp_path):
    path = write(tmp_path / "a.npz")
    first, same, other = (load(path, batch_size=8, seed=s).train for s in (3, 3, 4))
    epochs = [numbers(first) for _ in range(3)]
    assert epochs == [numbers(same) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert sorted(epochs[0]) == sorted(epochs[1])  # 32 training images, 4 full batches
    assert set(numbers(other)) != set(epochs[0])  # the split follows the seed too
    assert all(x.shape == (8, 5, 4, 1) for x, _ in first)


def test_drawing_iterators_goes_on_at_a_later_epoch(tmp_path):
    path = write(tmp_path / "a.npz")
    whole, resumed = (load(path, batch_size=8).train for _ in range(2))
    epochs = [numbers(whole) for _ in range(3)]
    for _ in range(2):
        iter(resumed)
    assert numbers(resumed) == epochs[2]


def test_train_drops_the_remainder_and_test_keeps_it(tmp_path):
    data = load(write(tmp_path / "a.npz"), batch_size=5, seed=1)
    assert [len(y) for _, y in data.train] == [5] * 6
    assert [len(y) for _, y in data.test] == [5, 3]
    assert numbers(data.test) == numbers(data.test) == sorted(numbers(data.test))
    assert not set(numbers(data.test)) & set(numbers(data.train))


def test_unbatched(tmp_path):
    data = load(write(tmp_path / "a.npz"), batch_size=None)
    assert data.train.element_spec[0].shape == (5, 4, 1)
    assert data.train.element_spec[1].shape == ()
    assert data.input_shape == (5, 4, 1) and data.classes == 2
    x, y = arrays(data.train)
    assert x.shape == (32, 5, 4, 1) and y.shape == (32,)
    np.testing.assert_array_equal(np.round(x[:, 0, 0, 0] * 255) % 2, y)


def test_labels_stay_with_their_images(tmp_path):
    x, y = arrays(load(write(tmp_path / "a.npz", classes=4), batch_size=8).train)
    np.testing.assert_array_equal(np.round(x[:, 0, 0, 0] * 255) % 4, y)


def test_limit_keeps_class_shares_and_repeats(tmp_path):
    data = load("embedded", limit=50, batch_size=10)
    y = arrays(data.train)[1]
    assert np.bincount(y).tolist() == [5] * 10
    assert np.bincount(arrays(data.test)[1]).tolist() == [5] * 10
    again = load("embedded", limit=50, batch_size=10)
    np.testing.assert_array_equal(arrays(data.test)[0], arrays(again.test)[0])
    few = load(write(tmp_path / "a.npz"), limit=1000, batch_size=8)
    assert len(arrays(few.test)[1]) == 8


@pytest.mark.parametrize("size, shape", [(14, (14, 14, 1)), ((7, 9), (7, 9, 1))])
def test_image_size_resizes(size, shape):
    data = load("embedded", limit=20, batch_size=5, image_size=size)
    x, _ = arrays(data.test)
    assert data.input_shape == shape and x.shape == (20, *shape)
    assert x.dtype == np.float32 and 0 <= x.min() and x.max() <= 1
    full, _ = arrays(load("embedded", limit=20, batch_size=5).test)
    np.testing.assert_allclose(x.mean(), full.mean(), atol=0.01)
    expected = tf.image.resize(full, shape[:2], antialias=True)
    np.testing.assert_allclose(x, expected, atol=0.51 / 255)


def test_arrays_stops_at_the_limit():
    asked = []

    def source():
        for i in range(10):
            asked.append(i)
            yield np.zeros((4, 2, 2, 1), np.float32), np.full(4, i, np.int32)

    spec = (tf.TensorSpec((4, 2, 2, 1), tf.float32), tf.TensorSpec((4,), tf.int32))
    x, y = arrays(tf.data.Dataset.from_generator(source, output_signature=spec), limit=6)
    assert x.shape == (6, 2, 2, 1) and y.tolist() == [0, 0, 0, 0, 1, 1]
    assert len(asked) < 10  # what it fetches ahead comes on top of 2


def test_arrays_refuses():
    with pytest.raises(TypeError, match=r"`dataset` must be a tf.data.Dataset of \(images"):
        arrays([1, 2])
    empty = load("embedded", limit=10, batch_size=5).test.take(0)
    with pytest.raises(ValueError, match="`dataset` is empty"):
        arrays(empty)
    with pytest.raises(ValueError, match="`limit` must be None or a whole number >= 1, got 0"):
        arrays(empty, limit=0)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"limit": -1}, "`limit` must be None or a whole number >= 1, got -1"),
        ({"limit": 2.5}, "`limit` must be None or a whole number >= 1, got 2.5"),
        ({"batch_size": 0}, "`batch_size` must be None or a whole number >= 1, got 0"),
        ({"batch_size": True}, "`batch_size` must be None or a whole number >= 1, got True"),
        ({"seed": -1}, "`seed` must be a whole number >= 0, got -1"),
        ({"seed": None}, "`seed` must be a whole number >= 0, got None"),
        ({"test_fraction": 1}, r"`test_fraction` must be in \(0, 1\), got 1"),
        ({"test_fraction": float("nan")}, r"`test_fraction` must be in \(0, 1\), got nan"),
        ({"test_fraction": "a"}, r"`test_fraction` must be in \(0, 1\), got 'a'"),
        ({"image_size": 0}, r"`image_size` must be a side or \(height, width\).*got 0"),
        ({"image_size": (3, 4, 5)}, r"`image_size` must be.*got \(3, 4, 5\)"),
        ({"image_size": 100_000}, "in memory, more than 4 GiB. Give a smaller `image_size`"),
        ({"limit": 100}, "`batch_size`=128 is larger than the 100 training images"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        load("embedded", **settings)


def test_wrong_name_or_path(tmp_path):
    for value in (None, 3, "", b"embedded"):
        with pytest.raises(TypeError, match='`name_or_path` must be "embedded", a path or'):
            load(value)
    for value in (tmp_path / "no", str(tmp_path / "no"), "./no", "no.npz", "~/no_such_folder"):
        with pytest.raises(ValueError, match="there is no such file or folder"):
            load(value)
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(ValueError, match="a.csv, which is no .npz. Give a folder"):
        load(tmp_path / "a.csv")
