import json

import numpy as np
import pytest

from keras_robust import export
from keras_robust._files import sizes
from keras_robust._keras import keras


def test_an_int8_file(images, tmp_path):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3)])
    kernel, bias = model.get_weights()
    # Half of the weights are zero, the rest of three values: four distinct ones.
    kernel[:] = 0.0
    kernel[:32] = np.tile([[0.5], [-1.0], [1.0], [0.25]], (8, 3))
    model.set_weights([kernel, np.array([1.0, 2.0, 3.0])])
    done = export.tflite(model, tmp_path / "m.tflite", representative=images, io_dtype="int8")
    found = export.describe(done.path)
    assert (found["kind"], found["bytes"], found["gzip_bytes"]) == (
        "tflite",
        done.bytes,
        done.gzip_bytes,
    )
    (given,), (returned,) = found["inputs"], found["outputs"]
    assert (given["shape"], given["dtype"]) == ([None, 8, 8, 1], "int8")
    assert given["scale"] == pytest.approx(1 / 255, rel=0.01) and given["zero_point"] == -128
    assert (returned["shape"], returned["dtype"]) == ([None, 3], "int8")
    assert found["ops"]["FULLY_CONNECTED"] == 1 and found["float_ops"] == []
    assert found["parameters"] == 64 * 3 + 3
    dense = next(w for w in found["weights"] if w["shape"] == [3, 64])
    assert (dense["dtype"], dense["sparsity"], dense["distinct"]) == ("int8", 0.5, 5)
    text = str(found)
    assert "1 FULLY_CONNECTED" in text and "50.0% zero" in text and "195 parameters" in text
    assert json.loads(json.dumps(found)) == found


def test_a_float_file(model, tmp_path):
    found = export.describe(export.tflite(model, tmp_path / "m.tflite").path)
    assert found["inputs"][0]["scale"] is None and found["class_names"] is None
    assert found["inputs"][0]["dtype"] == "float32"
    # Conv 36 + 4, depthwise 36 + 4, dense 48 + 3, batch normalisation folded or kept.
    assert 36 + 36 + 192 <= found["parameters"] <= model.count_params() + 4
    assert "CONV_2D: " in found["float_ops"][0] and "DEPTHWISE" not in found["float_ops"][0]
    kinds = [operation.split(":")[0] for operation in found["float_ops"]]
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"} <= set(kinds)
    assert all(found["ops"][kind] for kind in kinds)


def test_saved_models(model, tmp_path):
    export.serving(model, tmp_path, version=2, class_names=["a", "b", "c"])
    export.serving(model, tmp_path, version=11)
    found = export.describe(tmp_path)
    assert list(found["versions"]) == [2, 11]
    version = found["versions"][2]
    assert (version["bytes"], version["gzip_bytes"]) == sizes(tmp_path / "2")
    assert version["signatures"] == {
        "serving_default": {
            "inputs": {"images": {"shape": [None, 8, 8, 1], "dtype": "float32"}},
            "outputs": {
                "classes": {"shape": [None], "dtype": "string"},
                "logits": {"shape": [None, 3], "dtype": "float32"},
                "probabilities": {"shape": [None, 3], "dtype": "float32"},
            },
        }
    }
    assert "version 11" in str(found) and "images  (?, 8, 8, 1) float32" in str(found)
    assert list(export.describe(tmp_path / "2")["versions"]) == [None]


def test_what_cannot_be_described(model, tmp_path):
    done = export.tflite(model, tmp_path / "m.tflite")
    saved = export.serving(model, tmp_path / "s").path
    cases = {"missing.tflite": "is missing", "m.bin": "is neither a .tflite file nor"}
    (tmp_path / "m.bin").write_bytes(b"1")
    (tmp_path / "cut.tflite").write_bytes(done.path.read_bytes()[:-64])
    (tmp_path / "empty").mkdir()
    cases |= {"cut.tflite": "is damaged", "empty": "holds no saved_model.pb"}
    for name, message in cases.items():
        with pytest.raises(ValueError, match=f"{name}' {message}"):
            export.describe(tmp_path / name)
    pb = saved / "saved_model.pb"
    pb.write_bytes(pb.read_bytes()[:1000])
    with pytest.raises(ValueError, match="s/1' is no SavedModel that can be loaded"):
        export.describe(tmp_path / "s")


def test_a_saved_model_without_its_weights(model, tmp_path):
    saved = export.serving(model, tmp_path / "s").path
    for file in (saved / "variables").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="is no SavedModel that can be loaded"):
        export.describe(tmp_path / "s")
