import numpy as np
import pytest

from keras_robust._keras import LEGACY, keras
from keras_robust.evaluation import _sizes


def test_model_size_is_that_of_its_float_tflite_file(cnn, tmp_path):
    from keras_robust.export import tflite

    model = cnn()
    size, small, what = _sizes.model_sizes(model, (6, 6, 1))
    assert what == _sizes.CONVERTED
    tflite(model, tmp_path / "m.tflite", mode="float")
    # But for the names of functions, which count upwards in a process.
    assert abs(size - (tmp_path / "m.tflite").stat().st_size) <= 32
    assert size > 4 * sum(np.size(w) for w in model.get_weights()) and 0 < small < size


def test_what_cannot_be_converted_counts_its_weights(monkeypatch, cnn):
    def fail(*_):
        raise RuntimeError("no such operation")

    monkeypatch.setattr(_sizes, "_convert", fail)
    model = cnn(batch_norm=True)
    size, small, what = _sizes.model_sizes(model, (6, 6, 1))
    assert what == _sizes.WEIGHTS
    assert size == 4 * sum(np.size(w) for w in model.get_weights()) and small < size


@pytest.mark.skipif(not LEGACY, reason="TF-MOT needs tf_keras")
def test_wrapped_and_fake_quantized_models_have_sizes(cnn):
    from keras_robust.compress._tfmot import tfmot as load

    tfmot = load()
    model = cnn()
    plain = 4 * sum(np.size(w) for w in model.get_weights())
    pruned = tfmot.sparsity.keras.prune_low_magnitude(keras.models.clone_model(model))
    size, _, what = _sizes.model_sizes(pruned, (6, 6, 1))
    assert what == _sizes.WRAPPED and size == plain
    quantized = tfmot.quantization.keras.quantize_model(cnn())
    size, _, what = _sizes.model_sizes(quantized, (6, 6, 1))
    assert what == _sizes.CONVERTED and size > plain
