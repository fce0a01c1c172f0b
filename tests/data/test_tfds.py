"""`kr.data.load` by a name of tensorflow-datasets; nothing here needs a network."""

import socket
import sys
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.data import arrays, load

pytest.importorskip("importlib_resources")

pytestmark = pytest.mark.once
tfds = pytest.importorskip("tensorflow_datasets")

X = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3), np.uint8)
Y = np.arange(12) % 3


class TinyKr(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A small data set as its author writes one."""

    VERSION = tfds.core.Version("1.0.0")
    splits, keys, images = ("train", "test"), ("image", "label"), X
    label = tfds.features.ClassLabel(names=["a", "b", "c"])

    def _info(self):
        shape = (None, None, 3) if isinstance(self.images, list) else (6, 6, 3)
        image = tfds.features.Image(shape=shape, encoding_format="png")
        features = tfds.features.FeaturesDict({"image": image, "label": self.label})
        return tfds.core.DatasetInfo(
            builder=self, features=features, supervised_keys=self.keys, disable_shuffling=True
        )

    def _split_generators(self, _):
        return {split: self._generate_examples() for split in self.splits}

    def _generate_examples(self):
        for i, (image, label) in enumerate(zip(self.images, Y)):
            yield i, {"image": image, "label": int(label)}


def prepare(folder, **settings):
    """Leaves `tiny_kr` prepared in `folder`; its builder is not registered."""
    TinyKr.name = "tiny_kr"
    builder = type("TinyKr", (TinyKr,), settings, skip_registration=True)(data_dir=folder)
    builder.download_and_prepare()
    return folder


@pytest.mark.parametrize("name", ["tiny_kr", "tiny_kr:1.0.0"])
def test_prepared_data_by_name(tmp_path, name):
    data = load(name, data_dir=prepare(tmp_path), batch_size=4)
    assert data.class_names == ("a", "b", "c") and data.input_shape == (6, 6, 3)
    x, y = arrays(data.test)
    np.testing.assert_array_equal(x, X.astype(np.float32) / 255)
    np.testing.assert_array_equal(y, Y)
    assert np.bincount(arrays(data.train)[1]).tolist() == [4, 4, 4]


def test_split_limit_and_size(tmp_path):
    data = load(
        "tiny_kr", data_dir=str(prepare(tmp_path, splits=("train",))), batch_size=3, limit=3,
        image_size=4, test_fraction=0.5,
    )  # fmt: skip
    assert data.input_shape == (4, 4, 3)
    assert sorted(arrays(data.train)[1]) == sorted(arrays(data.test)[1]) == [0, 1, 2]


def test_validation_stands_in_for_test(tmp_path):
    data = load("tiny_kr", data_dir=prepare(tmp_path, splits=("train", "validation")), batch_size=4)
    assert len(arrays(data.test)[1]) == 12


def test_differing_sizes_need_image_size(tmp_path):
    folder = prepare(tmp_path, images=[X[0][: 3 + i % 2] for i in range(12)])
    with pytest.raises(ValueError, match="differ in size: .* Give `image_size`"):
        load("tiny_kr", data_dir=folder, batch_size=4)
    assert load("tiny_kr", data_dir=folder, batch_size=4, image_size=5).input_shape == (5, 5, 3)


def test_a_set_that_declares_no_keys(tmp_path):
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(6, 6, 3)), "label": TinyKr.label}
    )
    dataset = tf.data.Dataset.from_tensor_slices({"image": X, "label": Y})
    tfds.dataset_builders.store_as_tfds_dataset(
        name="stored_kr",
        version="1.0.0",
        features=features,
        split_datasets={"train": dataset, "test": dataset},
        data_dir=tmp_path,
    )
    x, y = arrays(load("stored_kr", data_dir=tmp_path, batch_size=4).test)
    found = {(i.tobytes(), int(j)) for i, j in zip(x, y)}
    assert found == {(i.tobytes(), j) for i, j in zip(X.astype(np.float32) / 255, Y.tolist())}


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"keys": ("image", "label", "label")}, "has no pair of image and label"),
        ({"keys": ("label", "image")}, "must have uint8 images as inputs"),
        ({"label": tfds.features.Scalar(np.int64)}, "must have class labels as targets"),
        ({"splits": ("test",)}, "has no split `train`, only test"),
    ],
)
def test_not_an_image_classification_set(tmp_path, settings, message):
    folder = prepare(tmp_path, **settings)
    with pytest.raises(ValueError, match=message):
        load("tiny_kr", data_dir=folder, batch_size=4)


@pytest.mark.parametrize(
    "name, message",
    [
        ("mnst", r"`name_or_path`='mnst' is unknown. Did you mean '?.*mnist.*must be \"embedded\""),
        ("embeded", "is unknown. Did you mean 'embedded'"),
        ("zzzzqqqq", "'zzzzqqqq' is unknown. It must be .*a name of tensorflow-datasets"),
        ("mnist:9.9.9", "refuses it: .*cannot be loaded at version 9.9.9, only: 3.0.1"),
        ("mnist/no", "refuses it: .*BuilderConfig no not found"),
    ],
)
def test_unknown_names(tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        load(name, data_dir=tmp_path)


def test_no_network_says_the_ways_out_at_once(tmp_path, monkeypatch):
    def unreachable(host, *_args, **_settings):
        raise socket.gaierror(f"cannot resolve {host}")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    with pytest.raises(ValueError) as caught:
        load("mnist", data_dir=tmp_path)
    message = str(caught.value)
    assert "'mnist' could not be downloaded and prepared: ConnectionError: no network to" in message
    assert "cannot resolve" in message and "give `data_dir` a folder" in message
    assert f"{tmp_path} has no mnist/3.0.1" in message
    assert str(tmp_path / "downloads" / "manual") in message and ".npz" in message
    assert not list(tmp_path.iterdir())


def test_original_files_at_hand_are_tried_before_the_network(tmp_path, monkeypatch):
    """A file under downloads/ may be all that is needed: tensorflow-datasets decides."""
    (tmp_path / "downloads" / "manual").mkdir(parents=True)
    (tmp_path / "downloads" / "manual" / "some.gz").write_bytes(b"1")
    asked = []

    def prepare_itself(builder, **_settings):
        asked.append(builder.name)
        raise OSError("wrong checksum")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", prepare_itself)
    monkeypatch.setattr(socket, "getaddrinfo", None)
    with pytest.raises(ValueError, match="could not be downloaded.*OSError: wrong checksum"):
        load("mnist", data_dir=tmp_path)
    assert asked == ["mnist"]


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r'pip install "keras-robust\[data\]"'):
        load("mnist")
    assert load("embedded", limit=200).classes == 10
