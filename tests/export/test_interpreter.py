import numpy as np
import pytest
import tensorflow as tf

from keras_robust import export
from keras_robust.export._interpreter import load


@pytest.fixture(params=["float", "int8"])
def exported(request, model, images, tmp_path):
    done = export.tflite(model, tmp_path / "m.tflite", mode=request.param, representative=images)
    return done.path


def test_batches_equal_single_images(exported, images):
    single = load(exported)
    take, give = single.get_input_details()[0]["index"], single.get_output_details()[0]["index"]
    assert list(single.get_input_details()[0]["shape"]) == [1, 8, 8, 1]
    want = []
    for image in images:
        single.set_tensor(take, image[None])
        single.invoke()
        want.append(single.get_tensor(give)[0])
    for batch_size in (1, 16, 70, 128):  # 70 images: with a rest, without, one batch.
        got = export.TFLiteModel(exported, batch_size=batch_size, threads=1)(images)
        assert got.dtype == np.float32 and got.shape == (70, 3)
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_a_file_of_fixed_batch_is_run_image_by_image(images, tmp_path):
    weights = tf.constant(np.random.default_rng(0).random((64, 3)), tf.float32)
    spec = [tf.TensorSpec((1, 8, 8, 1))]
    call = tf.function(lambda x: tf.reshape(x, (1, 64)) @ weights, input_signature=spec)
    concrete = call.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module())
    (tmp_path / "m.tflite").write_bytes(converter.convert())
    got = export.TFLiteModel(tmp_path / "m.tflite")(images)
    np.testing.assert_allclose(got, images.reshape(70, 64) @ weights.numpy(), rtol=1e-5)


def test_latency_is_timed_and_leaves_the_results(exported, images):
    model = export.TFLiteModel(exported)
    before = model(images)
    assert 0 < model.latency_ms(images, runs=5) < 1000
    np.testing.assert_array_equal(model(images), before)
    with pytest.raises(ValueError, match="`runs` must be a positive integer, got 0"):
        model.latency_ms(images, runs=0)


def test_files_that_are_none(exported, tmp_path):
    good = exported.read_bytes()
    cases = {
        "missing.tflite": (None, "is missing"),
        "empty.tflite": (b"", "is no .tflite file"),
        "text.tflite": (b"hello, this is text", "is no .tflite file"),
        "half.tflite": (good[: len(good) // 2], "is damaged"),
        "tail.tflite": (good[:-64], "is damaged"),
        "junk.tflite": (good[:100] + bytes(range(256)) * 8, "is damaged"),
    }
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}' {message}"):
            export.TFLiteModel(tmp_path / name)
    with pytest.raises(ValueError, match="is a folder"):
        export.TFLiteModel(tmp_path)


def test_files_that_are_no_classifiers(tmp_path):
    def write(function, *shapes, dtype=tf.float32):
        specs = [tf.TensorSpec(shape, dtype) for shape in shapes]
        concrete = tf.function(function, input_signature=specs).get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module())
        (tmp_path / "m.tflite").write_bytes(converter.convert())

    write(lambda a, b: a + b, (1, 4), (1, 4))
    with pytest.raises(ValueError, match="is no classifier: it has 2 inputs and 1 outputs"):
        export.TFLiteModel(tmp_path / "m.tflite")
    write(lambda a: a * 2.0, (1, 4, 4, 1))
    with pytest.raises(ValueError, match=r"an output of shape \(1, 4, 4, 1\)"):
        export.TFLiteModel(tmp_path / "m.tflite")
    write(lambda a: a + 1, (1, 4), dtype=tf.int32)
    with pytest.raises(ValueError, match="an input of type int32"):
        export.TFLiteModel(tmp_path / "m.tflite")
    write(lambda a: tf.cast(a, tf.float32) @ tf.ones([4, 3]), (1, 4), dtype=tf.uint8)
    with pytest.raises(ValueError, match="an input of type uint8 without a scale"):
        export.TFLiteModel(tmp_path / "m.tflite")
    assert export.describe(tmp_path / "m.tflite")["inputs"][0]["scale"] is None


def test_wrong_images_and_settings(exported):
    model = export.TFLiteModel(exported)
    for shape in ((4, 8, 8), (4, 8, 9, 1), (0, 8, 8, 1)):
        with pytest.raises(ValueError, match=r"takes images of shape \(n, 8, 8, 1\)"):
            model(np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="`threads` must be a positive integer"):
        export.TFLiteModel(exported, threads=0)
    with pytest.raises(ValueError, match="`batch_size` must be a positive integer"):
        export.TFLiteModel(exported, batch_size=0)
