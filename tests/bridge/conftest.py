"""The two directions, and weights with which every layer shows in the outputs."""

import dataclasses
import types
import typing

import numpy as np
import pytest

from keras_robust import bridge
from keras_robust.bridge._kerases import keras_3, tf_keras


@dataclasses.dataclass(frozen=True)
class Way:
    source: types.ModuleType
    target: types.ModuleType
    convert: typing.Callable

    def check(self, model, *inputs, tolerance=1e-5):
        """Converts `model`, compares all that can be seen, returns the twin."""
        shake(model)
        weights = [w.copy() for w in model.get_weights()]
        config = model.get_config()
        twin = self.convert(model)
        assert isinstance(twin, self.target.Model)
        given = list(inputs) if len(inputs) > 1 else inputs[0]
        wants = model(given, training=False)
        gots = twin(given, training=False)
        wants, gots = ([t] if not isinstance(t, list | tuple) else t for t in (wants, gots))
        assert len(wants) == len(gots)
        for want, got in zip(wants, gots, strict=True):
            want, got = np.asarray(want), np.asarray(got)
            assert np.std(want) > 1e-3, "the outputs say nothing about the layers"
            limit = tolerance * max(1.0, np.abs(want).max())
            np.testing.assert_allclose(got, want, rtol=0, atol=limit)
        assert model.get_config() == config
        for old, new in zip(weights, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        assert twin.count_params() == model.count_params()
        return twin


@pytest.fixture(params=["from_keras3", "to_keras3"])
def way(request):
    kerases = keras_3(), tf_keras()
    if request.param == "to_keras3":
        kerases = kerases[::-1]
    return Way(*kerases, getattr(bridge, request.param))


def shake(model):
    """Moves weights that start at zero or one, so that a lost or swapped one is seen."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        name = weight.name.rpartition("/")[2].partition(":")[0]
        if "kernel" in name or "count" in name or "seed" in name or "state" in name:
            continue
        low, high = (-0.5, 0.5) if name in ("bias", "beta", "moving_mean", "mean") else (0.5, 1.5)
        weight.assign(generator.uniform(low, high, weight.shape))
    for layer in model.layers:
        if type(layer).__name__ == "Normalization":
            layer.finalize_state()
        if hasattr(layer, "layers"):
            shake(layer)


@pytest.fixture
def images():
    return np.random.default_rng(1).random((3, 8, 8, 3), dtype=np.float32)
