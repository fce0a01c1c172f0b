import json
import re
import zipfile

import numpy as np
import pytest

from keras_robust import bridge
from keras_robust._keras import keras
from keras_robust.bridge._kerases import keras_3, tf_keras


@pytest.fixture(params=["keras 3", "tf_keras"])
def saved(request, tmp_path):
    k = keras_3() if request.param == "keras 3" else tf_keras()
    inputs = k.Input((8, 8, 3))
    h = k.layers.BatchNormalization()(k.layers.Conv2D(4, 3, activation="relu")(inputs))
    model = k.Model(inputs, k.layers.Dense(2)(k.layers.Flatten()(h)))
    model.compile("adam", "mse")
    path = tmp_path / "m.keras"
    model.save(path)
    return model, path


def test_a_file_of_either_keras(saved, images):
    model, path = saved
    loaded = bridge.load(path)
    assert isinstance(loaded, keras.Model)
    np.testing.assert_allclose(loaded(images), model(images), atol=1e-6)
    np.testing.assert_allclose(bridge.load(str(path))(images), model(images), atol=1e-6)


def test_damaged_files(saved, tmp_path):
    content = saved[1].read_bytes()
    (tmp_path / "cut.keras").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.keras").write_text("hello")
    (tmp_path / "empty.keras").write_bytes(b"")
    for name in ("cut", "text", "empty"):
        with pytest.raises(ValueError, match=f"{name}.keras' is no .keras file, or a truncated"):
            bridge.load(tmp_path / f"{name}.keras")
    with pytest.raises(ValueError, match="gone.keras' is missing"):
        bridge.load(tmp_path / "gone.keras")
    with pytest.raises(ValueError, match="is a folder"):
        bridge.load(tmp_path)
    (tmp_path / "old.h5").write_bytes(b"\x89HDF")
    with pytest.raises(ValueError, match="old.h5' is a file of the old HDF5 format"):
        bridge.load(tmp_path / "old.h5")


def rewritten(path, target, change):
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def test_foreign_zips_and_lost_weights(saved, tmp_path):
    path, target = saved[1], tmp_path / "x.keras"
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(ValueError, match="x.keras' is no .keras file: it lacks .*metadata.json"):
        bridge.load(target)
    rewritten(path, target, lambda n, c: b"{" if n == "config.json" else c)
    with pytest.raises(ValueError, match="x.keras' is no .keras file that can be read"):
        bridge.load(target)
    rewritten(path, target, lambda n, c: c[:800] if n.endswith(".h5") else c)
    with pytest.raises(ValueError, match="x.keras' was written by .* but cannot be loaded"):
        bridge.load(target)


def with_member(source, target, name, content):
    return rewritten(source, target, lambda n, c: content if n == name else c)


def test_weights_that_are_elsewhere_are_refused(saved, tmp_path):
    """HDF5 may take the values of a dataset, or a group, from any file."""
    import h5py

    (tmp_path / "secret").write_bytes(bytes(40))
    outside = [(str(tmp_path / "secret"), 0, 40)]
    for number in range(2):
        with h5py.File(tmp_path / "w.h5", "w") as file:
            if number:
                file["layers"] = h5py.ExternalLink("other.h5", "/")
            else:
                group = file.create_group("layers")
                group.create_dataset("kernel", (10,), "f4", external=outside)
        content = (tmp_path / "w.h5").read_bytes()
        path = with_member(saved[1], tmp_path / f"{number}.keras", "model.weights.h5", content)
        with pytest.raises(ValueError, match="weights name another place than their own"):
            bridge.load(path)


def test_keras_is_given_what_was_looked_at(saved, monkeypatch):
    """And so not how a model was compiled, which may name anything."""
    package = keras_3() if type(saved[0]).__module__.startswith("keras.") else tf_keras()
    load, seen = package.saving.load_model, []

    def spy(path, **settings):
        with zipfile.ZipFile(path) as archive:
            seen.append(archive.read("config.json"))
        return load(path, **settings)

    monkeypatch.setattr(package.saving, "load_model", spy)
    with zipfile.ZipFile(saved[1]) as archive:
        assert b"compile_config" in archive.read("config.json")
    bridge.load(saved[1])
    assert len(seen) == 1 and b"compile_config" not in seen[0]


def test_a_name_that_is_none_of_keras_changes_nothing(saved, tmp_path, images):
    path = tmp_path / "model.zip"
    path.write_bytes(saved[1].read_bytes())
    np.testing.assert_allclose(bridge.load(path)(images), saved[0](images), atol=1e-5)


def test_more_weights_than_the_file_has_are_not_made(saved, tmp_path):
    with zipfile.ZipFile(saved[1]) as archive:
        text = json.dumps(json.loads(archive.read("config.json")))
    text = re.sub(r'"units": \d+', '"units": 400000000', text)
    path = with_member(saved[1], tmp_path / "n.keras", "config.json", text)
    with pytest.raises(ValueError, match="asks for [0-9,]+ bytes of weights or more"):
        bridge.load(path)


def test_safe_mode_stays_on(saved, tmp_path):
    k = keras_3() if type(saved[0]).__module__.startswith("keras.") else tf_keras()
    model = k.Sequential([k.Input((4,)), k.layers.Lambda(lambda x: x * 2.0)])
    model.save(tmp_path / "l.keras")
    with pytest.raises(ValueError, match="l.keras' was written by .* cannot be loaded.*[Ll]ambda"):
        bridge.load(tmp_path / "l.keras")


def test_what_cannot_be_converted_names_the_file(tmp_path):
    from keras_robust._keras import LEGACY

    k = keras_3() if LEGACY else tf_keras()
    model = k.Sequential([k.Input((4,)), k.layers.Activation("hard_sigmoid", name="hs")])
    model.save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match="m.keras' cannot be converted: Layer 'hs'"):
        bridge.load(tmp_path / "m.keras")
