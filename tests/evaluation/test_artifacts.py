import shutil

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.evaluation._artifacts import open_artifact

X = np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3)


def model(x):
    return tf.stack([x[:, 0] - x[:, 1], 2 * x[:, 2], x[:, 1]], -1)


def test_saved_model_parent_means_its_newest_version(saved_model, tmp_path):
    for version, factor in ((2, 1.0), (10, 3.0), (9, 2.0)):
        saved_model(lambda x, factor=factor: factor * model(x), 3, f"serve/{version}")
    (tmp_path / "serve" / "99").mkdir()  # a number, but no SavedModel in it
    artifact = open_artifact("m", tmp_path / "serve", "m")
    np.testing.assert_allclose(artifact.predict(X), 3 * model(X), rtol=1e-6)
    one = open_artifact("m", str(tmp_path / "serve" / "9"), "m")
    np.testing.assert_allclose(one.predict(X), 2 * model(X), rtol=1e-6)


def test_loaded_saved_model_has_the_gradient_of_its_source(saved_model):
    artifact = open_artifact("m", saved_model(model, 3), "m")
    batch = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(batch)
        loss = artifact.gradient_model(batch)[:, 0]
    expected = np.tile([1.0, -1.0, 0.0], (4, 1))
    np.testing.assert_allclose(tape.gradient(loss, batch), expected, rtol=1e-6)


def test_saved_model_of_our_export_gives_its_logits(cnn, tmp_path, blobs):
    from keras_robust.export import serving

    network = cnn()
    serving(network, tmp_path / "serve", class_names=["a", "b", "c"])
    x, _ = blobs(6)
    artifact = open_artifact("m", tmp_path / "serve", "m")
    np.testing.assert_allclose(artifact.predict(x), network(x, training=False), atol=1e-5)


def test_signature_without_a_plain_output_is_refused(saved_model, tmp_path):
    module = tf.Module()
    module.call = tf.function(
        lambda x: {"one": model(x), "two": model(x)},
        input_signature=[tf.TensorSpec((None, 3), tf.float32)],
    )
    tf.saved_model.save(module, str(tmp_path / "two"), signatures=module.call)
    with pytest.raises(ValueError, match=r"one called 'logits', got \['one', 'two'\]"):
        open_artifact("m", tmp_path / "two", "m")
    with pytest.raises(ValueError, match="takes batches of exactly 2"):
        open_artifact("m", saved_model(model, 3, batch=2), "m")
    tf.saved_model.save(tf.Module(), str(tmp_path / "none"))
    with pytest.raises(ValueError, match="has no signature"):
        open_artifact("m", tmp_path / "none", "m")


def test_paths_that_are_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`artifacts\['m'\]` is .*absent.*does not exist"):
        open_artifact("m", tmp_path / "absent", "artifacts['m']")
    with pytest.raises(ValueError, match="is no SavedModel: it holds neither"):
        open_artifact("m", tmp_path, "m")
    other = tmp_path / "model.onnx"
    other.write_bytes(b"1")
    with pytest.raises(ValueError, match="a file of no kind known here"):
        open_artifact("m", other, "m")
    other = tmp_path / "model.keras"
    other.write_bytes(b"1")
    with pytest.raises(ValueError, match=r"keras.models.load_model\('model.keras'"):
        open_artifact("m", other, "m")


def test_corrupt_files_are_refused(saved_model, tflite_file):
    folder = saved_model(model, 3)
    (folder / "saved_model.pb").write_bytes(b"not a SavedModel")
    with pytest.raises(ValueError, match="could not be loaded.*Export it again"):
        open_artifact("m", folder, "m")
    shutil.rmtree(folder / "variables")
    file = tflite_file(model, 3)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"^`artifacts\['m'\]`: .*model.tflite"):
        open_artifact("m", file, "artifacts['m']")
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="is no .tflite file"):
        open_artifact("m", file, "m")


def test_tflite_predicts_what_its_source_does(tflite_file):
    artifact = open_artifact("m", tflite_file(model, 3), "m")
    assert artifact.gradient_model is None
    np.testing.assert_allclose(artifact.predict(X), model(X), atol=1e-6)
    assert artifact.latency_ms(X[:1], 5) > 0


def test_half_precision_logits_come_out_in_float32(cnn, blobs):
    network = cnn(dtype="float16")
    x, _ = blobs(6)
    logits = open_artifact("m", network, "m").predict(x)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, tf.cast(network(x, training=False), tf.float32), atol=1e-3)


def test_predict_traces_once_a_shape():
    traces = []

    def counted(x):
        traces.append(x.shape)
        return model(x)

    artifact = open_artifact("m", counted, "m")
    for batch in (X, X, X[:1], X, X[:1]):
        artifact.predict(batch)
    assert [tuple(shape) for shape in traces] == [(4, 3), (1, 3)]


def test_model_is_called_in_inference_mode(blobs):
    network = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Dropout(0.9), keras.layers.Flatten(),
         keras.layers.Dense(3)]
    )  # fmt: skip
    x, _ = blobs(6)
    predict = open_artifact("m", network, "m").predict
    np.testing.assert_array_equal(predict(x), predict(x))


def test_a_packed_file_is_the_model_in_it(cnn, tmp_path):
    model = cnn()
    size = kr.compress.pack(model, tmp_path / "model.krz")
    artifact = open_artifact("small", tmp_path / "model.krz", "model")
    x = np.random.default_rng(0).random((4, *model.input_shape[1:]), np.float32)
    np.testing.assert_allclose(artifact.predict(x), model(x), atol=1e-6)
    assert artifact.kind == "packed" and artifact.gradient_model is not None
    assert artifact.sizes(x.shape[1:])["bytes"] == size
    (tmp_path / "model.krz").write_bytes(b"no")
    with pytest.raises(ValueError, match="`model`: .* cannot be unpacked"):
        open_artifact("small", tmp_path / "model.krz", "model")


def test_packed_files_are_among_what_may_be_given(tmp_path):
    with pytest.raises(ValueError, match=r"a \.tflite or \.krz file, or of a SavedModel folder"):
        open_artifact("m", tmp_path / "absent", "m")
