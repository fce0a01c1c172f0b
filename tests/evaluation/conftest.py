"""Artifacts whose robust accuracy is known, on disk and in memory."""

import dataclasses
import importlib.util
import pathlib

import numpy as np
import pytest
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Shift:
    """A stand-in attack: every input moved by `eps` along one direction, whatever the model."""

    eps: float
    direction: float = -1.0
    norm: str = "linf"
    name: str = "shift"

    def __call__(self, model, x, y, seed=0):
        return tf.constant(x + self.direction * np.float32(self.eps))


@pytest.fixture
def shift():
    return Shift


@pytest.fixture
def inside(linear):
    """A two-class linear classifier, inputs away from the bounds, their labels and radii."""

    def make(count=60, inputs=12, seed=0):
        generator = np.random.default_rng(seed)
        x = generator.uniform(0.3, 0.7, size=(count, inputs)).astype("float32")
        model = linear(inputs, seed=seed)
        model.bias = -0.5 * model.weights.sum(0)  # the boundary passes through the middle
        logits = model(x).numpy().astype(np.float64)
        y = logits.argmax(-1)
        # The distance to the boundary in linf: margin over the l1 norm of the weights' difference.
        radius = np.abs(logits[:, 0] - logits[:, 1]) / np.abs(np.diff(model.weights)).sum()
        return model, x, y, radius

    return make


def write_tflite(call, inputs, path):
    """`call` from `(batch, inputs)` to logits as a float `.tflite` file."""
    function = tf.function(call, input_signature=[tf.TensorSpec((None, inputs), tf.float32)])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    path.write_bytes(converter.convert())
    return path


def write_saved_model(call, inputs, folder, output="logits", batch=None):
    """`call` as a SavedModel with the signature "serving_default"."""
    module = tf.Module()
    module.call = tf.function(
        lambda images: {output: call(images)},
        input_signature=[tf.TensorSpec((batch, inputs), tf.float32, name="images")],
    )
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.call})
    return folder


@pytest.fixture
def tflite_file(tmp_path):
    return lambda call, inputs, name="model.tflite": write_tflite(call, inputs, tmp_path / name)


@pytest.fixture
def saved_model(tmp_path):
    def write(call, inputs, name="saved", **settings):
        return write_saved_model(call, inputs, tmp_path / name, **settings)

    return write


@pytest.fixture
def small_report(blobs, cnn):
    """A report on six images with everything in it: images, curves, hostile names."""
    from keras_robust.attacks import FGSM, PGD
    from keras_robust.evaluation import evaluate

    def make(**settings):
        x, y = blobs(12)
        artifacts = {"a": cnn(), "<script>alert('b')</script>": cnn(seed=5)}
        settings = {
            "class_names": ["<script>alert(1)</script>", "b & c", '"quoted"'],
            "histories": {
                "a": {"val_accuracy": [0.5, 0.7], "val_robust_accuracy": [0.2, float("nan")]}
            },
            "eps_sweep": [0, 0.1],
            "latency_runs": 2,
            "progress": False,
            **settings,
        }
        return evaluate(artifacts, x, y, [FGSM(0.1), PGD(0.1, steps=2)], **settings)

    return make


def _beside(name):
    """The module in this folder: under importmode=importlib test files can't import it."""
    path = pathlib.Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_masked = _beside("masked_models")
small_images, masked_model = _masked.small_images, _masked.masked_model
