"""What pruning and clustering made is in the .tflite file: read out of its flatbuffer."""

import numpy as np
import pytest

from keras_robust import export
from keras_robust._keras import LEGACY, keras
from keras_robust.compress import Cluster, Prune, Quantize, Recipe, pack, unpack
from keras_robust.export import _flatbuffer

pytestmark = pytest.mark.skipif(not LEGACY, reason="compress needs tf_keras")
layers = keras.layers
CLUSTERS = {"conv": 5, "normed": 7, "middle": 6}
FLOAT = ["middle", "alone"]


@pytest.fixture(scope="module")
def result(tools):
    """ "alone" is pruned, not clustered, and left in float."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(tools.shape)
    x = layers.Conv2D(6, 3, strides=2, activation="relu", name="conv")(inputs)
    x = layers.Conv2D(5, 3, name="normed")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dense(16, activation="relu", name="middle")(layers.Flatten()(x))
    x = layers.Dense(12, activation="relu", name="alone")(x)
    model = keras.Model(inputs, layers.Dense(tools.classes, name="out")(x))
    stages = [
        Prune({**dict.fromkeys(CLUSTERS, 0.6), "alone": 0.5}),
        Cluster(CLUSTERS),
        Quantize(float_layers=FLOAT),
    ]
    return Recipe(stages).run(model, tools.dataset(64), epochs=1, verbose=0)


def weights_in(path):
    """The kernels of the file, in the model's order."""
    found = _flatbuffer.operations(path.read_bytes())
    kernels = [op.inputs[1] for op in found if op.kind in ("CONV_2D", "FULLY_CONNECTED")]
    return dict(zip(["conv", "normed", "middle", "alone", "out"], kernels, strict=True))


def test_every_stage_kept_its_promise(result):
    assert not [sentence for stage in result.stages for sentence in stage.broken]
    assert [len(stage.layers) for stage in result.stages] == [5, 5, 5]


@pytest.mark.parametrize("stage", ["clustered", "quantized"])
@pytest.mark.filterwarnings("error")
def test_zeros_and_values_in_the_file(result, stage, tools, tmp_path):
    x, _ = tools.data(32)
    path = tmp_path / "m.tflite"
    done = export.tflite(result.models[stage], path, check=x)
    kernels = weights_in(path)
    for name, kernel in kernels.items():
        floats = stage == "clustered" or name in FLOAT
        assert kernel.dtype == ("FLOAT32" if floats else "INT8"), name
        share = {"out": 0.0, "alone": 0.5}.get(name, 0.6)
        assert np.mean(kernel.values == 0) >= share - 1 / kernel.values.size, name
        if name in CLUSTERS and not (stage == "clustered" and name == "normed"):
            assert 2 < np.unique(kernel.values).size <= CLUSTERS[name], name
    # A float file has the BatchNormalization multiplied in, channel by channel.
    if stage == "clustered":
        assert max(np.unique(channel).size for channel in kernels["normed"].values) <= 7
        return
    assert len(done.float_ops) == 2 and done.mode == "int8"
    trained = result.model.get_layer("quant_middle").layer.kernel.numpy()
    np.testing.assert_array_equal(kernels["middle"].values, trained.T)
    # Only the steps of int8 may differ.
    assert done.max_abs_error < 0.02 * np.ptp(result.model.predict(x, verbose=0))


def test_the_packed_file_holds_float_layers_too(result, tools, tmp_path):
    x, _ = tools.data(8)
    pack(result.model, tmp_path / "m.krz")
    twin = unpack(tmp_path / "m.krz")
    np.testing.assert_array_equal(twin(x), result.model(x))
