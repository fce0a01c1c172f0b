import os

import numpy as np
import pytest
import tensorflow as tf

from keras_robust import export
from keras_robust._keras import LEGACY, keras


def signature(folder, version=1):
    loaded = tf.saved_model.load(str(folder / str(version)))
    assert list(loaded.signatures) == ["serving_default"]
    # The loaded object owns the variables: a signature alone would lose them.
    return loaded, loaded.signatures["serving_default"]


def gradient(call, images):
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = call(x)
    return tape.gradient(out, x).numpy()


@pytest.mark.parametrize("kind", ["functional", "sequential", "subclassed"])
def test_the_signature(kind, build, images, tmp_path):
    model = build(kind)
    done = export.serving(model, tmp_path / "m", check=images)
    assert done.path == tmp_path / "m" / "1" and done.mode == "savedmodel"
    assert (done.images, done.compared_on) == (70, "check")
    files = [p for p in done.path.rglob("*") if p.is_file()]
    assert done.bytes == sum(p.stat().st_size for p in files) > done.gzip_bytes
    loaded, call = signature(tmp_path / "m")
    specs = call.structured_input_signature[1]
    assert specs["images"].shape.as_list() == [None, 8, 8, 1]
    assert specs["images"].dtype == tf.float32
    want = np.asarray(model(images, training=False))
    for n in (1, 70):  # Any batch.
        out = call(images=tf.constant(images[:n]))
        assert set(out) == {"logits", "probabilities"}
        np.testing.assert_allclose(out["logits"], want[:n], atol=1e-6)
        exp = np.exp(want[:n] - want[:n].max(-1, keepdims=True))
        np.testing.assert_allclose(
            out["probabilities"], exp / exp.sum(-1, keepdims=True), atol=1e-6
        )


def test_labels_are_the_top_class(model, images, tmp_path):
    names = np.array(["shoe", "größe", "bag"])
    export.serving(model, tmp_path / "m", class_names=names.tolist())
    loaded, call = signature(tmp_path / "m")
    got = [b.decode() for b in call(images=tf.constant(images))["classes"].numpy()]
    top = np.asarray(model(images, training=False)).argmax(-1)
    assert got == names[top].tolist() and len(set(got)) > 1
    with pytest.raises(ValueError, match="`class_names` has 2 names"):
        export.serving(model, tmp_path / "n", class_names=["a", "b"])
    assert os.listdir(tmp_path) == ["m"]


def test_it_stays_differentiable(model, images, tmp_path):
    export.serving(model, tmp_path / "m")
    loaded, call = signature(tmp_path / "m")
    got = gradient(lambda x: call(images=x)["logits"][:, 0], images)
    want = gradient(lambda x: model(x, training=False)[:, 0], images)
    assert np.abs(want).max() > 0.01
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_custom_gradients_stay(images, tmp_path):
    @tf.custom_gradient
    def straight_through(x):
        return tf.sign(x), lambda upstream: 2.0 * upstream

    class Sign(keras.layers.Layer):
        def call(self, x):
            return straight_through(x)

    inputs = keras.layers.Input((8, 8, 1))
    h = keras.layers.Flatten()(Sign()(inputs))
    export.serving(keras.Model(inputs, keras.layers.Dense(2)(h)), tmp_path / "m")
    loaded, call = signature(tmp_path / "m")
    assert np.abs(gradient(lambda x: call(images=x)["logits"][:, 0], images)).max() > 0.01


@pytest.mark.skipif(not LEGACY, reason="TF-MOT needs tf_keras")
def test_a_fake_quantized_model(quantized, images, tmp_path):
    export.serving(quantized, tmp_path / "m", check=images)
    loaded, call = signature(tmp_path / "m")
    got = gradient(lambda x: call(images=x)["logits"][:, 0], images)
    want = gradient(lambda x: quantized(x, training=False)[:, 0], images)
    assert np.abs(want).max() > 0.01
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_versions_are_never_overwritten(model, tmp_path):
    export.serving(model, tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    export.serving(model, tmp_path, version=7)
    with pytest.raises(ValueError, match="Version 1 exists already .* is version=8"):
        export.serving(model, tmp_path, version=1)
    assert sorted(os.listdir(tmp_path)) == ["1", "7"]
    assert all(p.read_bytes() == content for p, content in before.items())


@pytest.mark.parametrize("version", [0, -1, 1.0, "1", True, None])
def test_wrong_versions(version, model, tmp_path):
    with pytest.raises(ValueError, match="`version` must be a positive integer"):
        export.serving(model, tmp_path, version=version)


def test_what_cannot_be_reproduced_leaves_nothing(build, tmp_path):
    with pytest.raises(export.ExportMismatch, match="The savedmodel artifact differs"):
        export.serving(build("noisy"), tmp_path / "m")
    assert os.listdir(tmp_path) == []


def test_folders_that_cannot_be(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file. Give the path of a folder"):
        export.serving(model, tmp_path / "file")
    with pytest.raises(ValueError, match="Cannot write"):
        export.serving(model, tmp_path / "file" / "m")


def test_open_sizes_stay_open(images, tmp_path):
    layers = keras.layers
    inputs = layers.Input((None, None, 1))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, layers.Dense(3)(pooled))
    export.serving(model, tmp_path)
    loaded, call = signature(tmp_path)
    assert call.structured_input_signature[1]["images"].shape.as_list() == [None, None, None, 1]
    wide = np.tile(images, (1, 1, 2, 1))
    np.testing.assert_allclose(call(images=tf.constant(wide))["logits"], model(wide), atol=1e-6)


def test_the_model_is_left_alone(model, images, tmp_path):
    model.compile("sgd", "mse")
    before, config = [w.copy() for w in model.get_weights()], model.get_config()
    export.serving(model, tmp_path)
    assert model.get_config() == config
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


class Soft(keras.Model):
    """Ends in a softmax that no layer shows."""

    def __init__(self):
        super().__init__()
        self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(3)

    def call(self, x, training=False):
        return tf.nn.softmax(self.dense(self.flatten(x)))


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("write", [export.serving, export.tflite])
def test_probabilities_that_only_values_show_are_refused(write, given, images, tmp_path):
    model = Soft()
    model(images[:1])
    settings = {"check": images} if given or write is export.tflite else {}
    path = tmp_path / ("m.tflite" if write is export.tflite else "m")
    if not settings:
        model.build(images.shape)
        model = keras.Sequential([keras.Input((8, 8, 1)), model])
    with pytest.raises(ValueError, match="`model` returned probabilities, but logits are needed"):
        write(model, path, **settings)
    assert os.listdir(tmp_path) == []


def test_images_that_are_none_are_refused_by_name(model, images, tmp_path):
    def batches():
        yield [images]

    for value, message in [
        (batches, r"`representative` .* got a function. Give .*batch\[0\] for batch"),
        ((images, np.zeros(len(images))), r"`representative` .* looks like \(images, labels\)"),
        (batches(), "`representative` must be an array .*, got a generator"),
    ]:
        with pytest.raises(TypeError, match=message):
            export.tflite(model, tmp_path / "m.tflite", representative=value)
    assert os.listdir(tmp_path) == []
