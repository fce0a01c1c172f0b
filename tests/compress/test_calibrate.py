import numpy as np
import pytest
import tensorflow as tf

from keras_robust._keras import LEGACY, keras
from keras_robust.compress import Quantize
from keras_robust.compress._calibrate import calibrate, calibration_batches, sample
from keras_robust.compress._flatten import flatten
from keras_robust.compress._stage import Context

pytestmark = pytest.mark.skipif(not LEGACY, reason="compress needs tf_keras")
DATA = tf.data.Dataset.from_tensor_slices


def ranges(model):
    return {
        w.name.partition(":")[0].rpartition("/")[2] + " " + layer.name: w.numpy()
        for layer in model.layers
        for w in layer.weights
        if w.name.partition(":")[0].endswith(("_min", "_max"))
    }


def test_ranges_are_those_of_the_data_by_hand():
    inputs = keras.Input((2,))
    x = keras.layers.Dense(2, name="a", activation="relu")(inputs)
    model = flatten(keras.Model(inputs, keras.layers.Dense(2, name="b")(x)))
    model.get_layer("a").set_weights([np.diag([2.0, -4.0]), np.zeros(2)])
    model.get_layer("b").set_weights([np.eye(2), np.array([0.5, -3.0])])
    batches = tf.data.Dataset.from_tensor_slices(
        np.array([[[1.0, 0.5], [0.0, 0.25]], [[2.0, 0.5], [0.5, 0.0]]], "float32")
    )
    wrapped = Quantize().wrap(model, Context(1, 1, batches))
    found = ranges(wrapped)
    # Inputs: the extremes. a: batch maxima 2 and 4. b: a's outputs plus its bias.
    near = dict(rel=1e-2)
    entry = wrapped.layers[1].name
    assert found[f"{entry}_max {entry}"] == 2.0 and found[f"{entry}_min {entry}"] == 0.0
    assert found["kernel_max quant_a"] == pytest.approx(4.0)
    assert found["post_activation_min quant_a"] == 0.0
    assert found["post_activation_max quant_a"] == pytest.approx(3.0, **near)
    assert found["post_activation_min quant_b"] == pytest.approx(-3.0, **near)
    assert found["post_activation_max quant_b"] == pytest.approx(3.5, **near)


def test_fake_quantized_model_is_close_at_once(tools):
    model = flatten(tools.model())
    x, _ = tools.data(64)
    wrapped = Quantize().wrap(model, Context(1, 1, tools.dataset().map(lambda x, y: x)))
    exact = model(x).numpy()
    assert np.abs(wrapped(x, training=False) - exact).max() < 0.05 * np.ptp(exact)
    # As TF-MOT leaves it, with [-6, 6] for all weights and activations, it is not.
    raw = Quantize().wrap(model, Context(1, 1))
    assert np.abs(raw(x, training=False) - exact).max() > 0.05 * np.ptp(exact)


def test_calibration_takes_itself_out_when_it_fails(tools):
    wrapped = Quantize().wrap(flatten(tools.model()), Context(1, 1))
    before = ranges(wrapped)["post_activation_max quant_conv_b"]
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        calibrate(wrapped, [np.zeros((2, 5, 5, 1), "float32")])
    quantizers = [
        type(q).__name__
        for layer in wrapped.layers
        for q in [getattr(layer, "quantizer", None), *(getattr(layer, "_output_quantizers", ()))]
        if q is not None
    ]
    assert "_Watcher" not in quantizers
    assert ranges(wrapped)["post_activation_max quant_conv_b"] == before


def test_least_error_is_the_best_of_all_parts_tried(rng):
    from keras_robust.compress._calibrate import _SHRUNK, least_error

    values = np.concatenate([rng.normal(size=5000), [20.0]]).astype("float32")
    low, high = least_error(values)

    def error(low, high):
        step = (high - low) / 255
        zero = np.round(low / step)
        return np.mean((np.clip(np.round(values / step), zero, zero + 255) * step - values) ** 2)

    extremes = min(values.min(), 0), values.max()
    assert error(low, high) <= 1.0001 * min(
        error(s * extremes[0], s * extremes[1]) for s in _SHRUNK
    )
    assert error(low, high) < error(*extremes)
    assert least_error(np.zeros(4)) == (0.0, 0.0)


def test_percentile_forgets_an_outlier():
    inputs = keras.Input((2,))
    x = keras.layers.Dense(2, name="a", activation="relu")(inputs)
    model = flatten(keras.Model(inputs, keras.layers.Dense(2, name="b")(x)))
    model.get_layer("a").set_weights([np.eye(2), np.zeros(2)])
    data = np.random.default_rng(0).uniform(size=(20000, 2)).astype("float32")
    data[0] = 100
    batches = tf.data.Dataset.from_tensors(data)
    found = {
        rule: ranges(Quantize(calibration=rule).wrap(model, Context(1, 1, batches)))
        for rule in ("mean", "percentile")
    }
    key = "post_activation_max quant_a"
    assert found["mean"][key] == pytest.approx(100, rel=1e-2)
    assert found["percentile"][key] < 2


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda x: x.numpy()[:, :7], ValueError, r"inputs of shape \(7, 8, 1\), .*\(8, 8, 1\)"),
        (lambda x: x.numpy()[0], ValueError, r"`x` has inputs of shape \(8, 1\), but the model"),
        (lambda x: DATA(x[:, :7]).batch(8), ValueError, r"inputs of shape \(7, 8, 1\)"),
        (lambda x: DATA(x), ValueError, r"`x` is not batched. Write x.batch\(32\)"),
        (lambda x: DATA((x, x)).batch(8), TypeError, r"inputs alone.*map\(lambda x, y: x\)"),
        (lambda x: DATA(x).batch(8).repeat(), ValueError, "`x` never ends.*x.take"),
        (lambda x: DATA(x).batch(8).take(0), ValueError, "`x` is empty"),
        (lambda x: DATA(x * np.nan).batch(8), ValueError, "64 values that are NaN|NaN or inf"),
        (lambda x: DATA(tf.cast(x, tf.uint8)).batch(8), TypeError, "must be floating point"),
    ],
)
def test_inputs_that_do_not_fit(tools, change, error, match):
    with pytest.raises(error, match=match):
        calibration_batches(change(tf.constant(tools.data(8)[0])), tools.model())


def test_inputs_that_fit(tools):
    x, _ = tools.data(40)
    batches = list(calibration_batches(x, tools.model()))
    np.testing.assert_array_equal(np.concatenate(batches), x)
    unknown = DATA(x).batch(8).filter(lambda x: True)
    assert len(list(calibration_batches(unknown, tools.model()))) == 5


@pytest.mark.parametrize("shape", [(128, 32, 32, 64), (32, 64, 64, 12), (7, 11, 13, 17), (3, 1)])
def test_a_sample_sees_every_channel_alike(shape):
    channels = np.broadcast_to(np.arange(shape[-1], dtype=np.uint8), shape).reshape(-1)
    seen = sample(channels)
    assert min(channels.size, 10_000) <= seen.size <= 50_000
    counts = np.bincount(seen, minlength=shape[-1])
    assert counts.max() - counts.min() <= 1
