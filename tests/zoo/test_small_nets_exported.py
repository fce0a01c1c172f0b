"""MobileNet, SqueezeNet and ShuffleNet, tiny, as int8 files for a device."""

import numpy as np
import pytest

import keras_robust as kr
from keras_robust import zoo
from keras_robust._keras import LEGACY

pytestmark = pytest.mark.once


@pytest.mark.parametrize("name", ["mobilenet", "squeezenet", "shufflenet"])
def test_the_device_runs_it(name, tmp_path):
    few = name == "shufflenet"
    settings = {"units": (2,)} if few else {}
    model = zoo.build(name, input_shape=(8, 8, 1), classes=3, width=0.125, **settings)
    images = np.random.default_rng(0).random((16, 8, 8, 1)).astype("float32")
    small = kr.export.tflite(model, tmp_path / "int8.tflite", representative=images, tolerance=1.0)
    assert small.mode == "int8" and not small.float_ops
    if few:  # Of the most kinds of layers: groups, and a shuffle.
        exported = kr.export.tflite(model, tmp_path / "float.tflite", check=images)
        assert exported.mode == "float" and exported.agreement == 1.0
        other = (kr.to_keras3 if LEGACY else kr.from_keras3)(model)
        np.testing.assert_allclose(other(images), model(images), atol=1e-4)
