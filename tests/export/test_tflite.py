import os

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust import export
from keras_robust._keras import LEGACY, keras
from keras_robust.export import _flatbuffer
from keras_robust.export._interpreter import load

MODES = ("float", "dynamic", "float16", "int8", "int16x8")
needs_tf_keras = pytest.mark.skipif(not LEGACY, reason="TF-MOT needs tf_keras")


def logits(model, images):
    return np.asarray(model(images, training=False))


def operations(path):
    return _flatbuffer.operations(path.read_bytes())


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_computes_what_the_model_does(mode, model, images, tmp_path):
    before = [w.copy() for w in model.get_weights()]
    done = export.tflite(
        model, tmp_path / "m.tflite", mode=mode, representative=images, check=images
    )
    assert (done.mode, done.images, done.compared_on) == (mode, 70, "check")
    assert done.bytes == os.path.getsize(tmp_path / "m.tflite") > done.gzip_bytes > 0
    got = export.TFLiteModel(done.path)(images)
    want = logits(model, images)
    assert done.max_abs_error == pytest.approx(np.abs(got - want).max(), rel=1e-6)
    assert done.agreement == np.mean(got.argmax(-1) == want.argmax(-1))
    near = {"float": 1e-6, "dynamic": 1e-2, "float16": 1e-2, "int16x8": 2e-2, "int8": 0.1}
    assert np.abs(got - want).max() < near[mode]
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("kind", ["sequential", "subclassed"])
@pytest.mark.parametrize("mode", ["float", "int8"])
def test_other_kinds_of_model(kind, mode, build, images, tmp_path):
    model = build(kind)
    done = export.tflite(model, tmp_path / "m.tflite", mode=mode, representative=images)
    assert done.compared_on == "representative"
    assert done.max_abs_error < (1e-6 if mode == "float" else 0.1)


def test_weights_take_the_type_of_the_mode(images, tmp_path):
    # The converter leaves weights of less than 1,024 numbers in float when "dynamic".
    model = keras.Sequential(
        [keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(32)]
    )
    kinds = {}
    for mode in MODES:
        path = tmp_path / f"{mode}.tflite"
        export.tflite(model, path, mode=mode, representative=images)
        weights = _flatbuffer.parameters(operations(path))
        kinds[mode] = next(w.dtype for w in weights if w.shape == (32, 64))
    int8 = dict.fromkeys(("dynamic", "int8", "int16x8"), "INT8")
    assert kinds == {"float": "FLOAT32", "float16": "FLOAT16"} | int8


def test_every_operation_of_an_int8_file_is_int8(model, images, tmp_path):
    done = export.tflite(model, tmp_path / "m.tflite", representative=images)
    assert done.mode == "int8" and done.float_ops == ()
    found = {op.kind: op for op in operations(done.path)}
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"} <= set(found)
    for kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        assert [t.dtype for t in found[kind].inputs[:2]] == ["INT8", "INT8"]
        assert found[kind].outputs[0].dtype == "INT8"
    assert found["CONV_2D"].inputs[1].scales == 4  # One a channel.
    interpreter = load(done.path)
    float_tensors = [d for d in interpreter.get_tensor_details() if d["dtype"] == np.float32]
    assert len(float_tensors) == 2  # The input and the output.


@needs_tf_keras
def test_a_fake_quantized_model_needs_no_representative(quantized, images, tmp_path):
    done = export.tflite(quantized, tmp_path / "m.tflite", check=images)
    assert done.mode == "int8" and done.float_ops == ()
    conv = next(op for op in operations(done.path) if op.kind == "CONV_2D")
    assert [t.dtype for t in (*conv.inputs, *conv.outputs)] == ["INT8", "INT8", "INT32", "INT8"]
    assert conv.inputs[1].scales == 4
    # One step of the output's grid is all that the rounding may move.
    step = np.diff(np.unique(export.TFLiteModel(done.path)(images))).min()
    assert done.max_abs_error <= step * 1.01
    small = export.tflite(quantized, tmp_path / "i.tflite", check=images, io_dtype="int8")
    np.testing.assert_array_equal(
        export.TFLiteModel(small.path)(images), export.TFLiteModel(done.path)(images)
    )


@needs_tf_keras
def test_a_fake_quantized_model_is_int8_or_nothing(quantized, tmp_path):
    with pytest.raises(ValueError, match='`mode` must be "int8" for a fake-quantized model'):
        export.tflite(quantized, tmp_path / "m.tflite", mode="float16")


@needs_tf_keras
def test_training_wrappers_are_to_be_stripped_first(build, tmp_path):
    import tensorflow_model_optimization as tfmot

    wrapped = tfmot.sparsity.keras.prune_low_magnitude(build("sequential"))
    with pytest.raises(ValueError, match="still has training wrappers .* Strip them first"):
        export.tflite(wrapped, tmp_path / "m.tflite")


@needs_tf_keras
def test_layers_left_unquantized_are_named_and_warned_of(images, tmp_path):
    import tensorflow_model_optimization as tfmot

    api = tfmot.quantization.keras
    layers = keras.layers
    inputs = layers.Input((8, 8, 1))
    h = api.quantize_annotate_layer(layers.Conv2D(4, 3))(inputs)
    plain = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(h)))
    with api.quantize_scope():
        model = api.quantize_apply(plain)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, np.arange(70) % 3, epochs=2, verbose=0)
    with pytest.warns(UserWarning, match="still computes 1 convolutions or dense layers"):
        done = export.tflite(model, tmp_path / "m.tflite", check=images)
    assert [op.partition(":")[0] for op in done.float_ops] == ["FULLY_CONNECTED"]


@pytest.mark.parametrize("io_dtype", ["int8", "uint8"])
def test_quantized_inputs_and_outputs(io_dtype, model, images, tmp_path):
    plain = export.tflite(model, tmp_path / "f.tflite", representative=images)
    done = export.tflite(model, tmp_path / "q.tflite", representative=images, io_dtype=io_dtype)
    interpreter = load(done.path)
    for detail in (*interpreter.get_input_details(), *interpreter.get_output_details()):
        assert np.dtype(detail["dtype"]).name == io_dtype
    np.testing.assert_allclose(
        export.TFLiteModel(done.path)(images), export.TFLiteModel(plain.path)(images), atol=1e-6
    )


def test_the_signature_has_names(model, tmp_path):
    done = export.tflite(model, tmp_path / "m.tflite")
    assert done.compared_on == "random" and done.images == 32
    signatures = load(done.path).get_signature_list()
    assert list(signatures.values()) == [{"inputs": ["images"], "outputs": ["logits"]}]


def test_images_come_from_datasets_too(model, images, tmp_path):
    labels = np.zeros(70, np.int32)
    pairs = tf.data.Dataset.from_tensor_slices((images, labels))
    files = []
    for name, value in {
        "array": images,
        "tensor": tf.constant(images),
        "single": pairs,
        "pairs": pairs.batch(16),
        "endless": pairs.batch(70).repeat(),
        "images": tf.data.Dataset.from_tensor_slices(images).batch(7),
    }.items():
        done = export.tflite(model, tmp_path / f"{name}.tflite", representative=value)
        if name != "endless":
            files.append(done.path.read_bytes())
    assert len(set(files)) == 1


def test_class_names_stay_in_the_file(model, images, tmp_path):
    names = ["shoe", "größe", "bag"]
    done = export.tflite(model, tmp_path / "m.tflite", class_names=names)
    assert export.describe(done.path)["class_names"] == names
    np.testing.assert_allclose(
        export.TFLiteModel(done.path)(images), logits(model, images), atol=1e-6
    )
    with pytest.raises(ValueError, match="`class_names` has 2 names, but the model returns 3"):
        export.tflite(model, tmp_path / "m.tflite", class_names=["a", "b"])
    with pytest.raises(ValueError, match="`class_names` must be non-empty lines"):
        export.tflite(model, tmp_path / "m.tflite", class_names=["a", "b\nc", "d"])


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_is_written_as_float32(policy, images, tmp_path):
    layers = keras.layers

    def build(policy):
        keras.utils.set_random_seed(0)
        inner = keras.Sequential([layers.Input((8, 8, 1)), layers.Conv2D(4, 3, dtype=policy)])
        inputs = layers.Input((8, 8, 1))
        h = layers.Flatten(dtype=policy)(inner(inputs))
        return keras.Model(inputs, layers.Dense(3, dtype="float32")(h))

    model = build(policy)
    done = export.tflite(model, tmp_path / "m.tflite", check=images)
    assert done.tolerance == 5e-2
    np.testing.assert_allclose(
        export.TFLiteModel(done.path)(images), logits(build("float32"), images), atol=1e-6
    )
    assert model.layers[1].layers[-1].compute_dtype == policy.removeprefix("mixed_")
    assert export.tflite(model, tmp_path / "i.tflite", representative=images).float_ops == ()


def test_mixed_precision_of_a_subclassed_model_is_refused(build, images, tmp_path):
    model = build("subclassed", dtype="mixed_float16")
    with pytest.raises(ValueError, match="computes in half precision, which TFLite does not"):
        export.tflite(model, tmp_path / "m.tflite", check=images)


@pytest.mark.parametrize("classes", [1, None])
def test_what_is_no_classifier_is_refused(classes, tmp_path):
    head = [keras.layers.Flatten(), keras.layers.Dense(1)][: 2 * (classes or 0)]
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3), *head])
    for write in (export.tflite, export.serving):
        with pytest.raises(ValueError, match="logits .batch, classes. with at least 2"):
            write(model, tmp_path / "m.tflite")


def test_what_cannot_be_reproduced_is_an_error_with_the_numbers(build, images, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"the good one of yesterday")
    with pytest.raises(export.ExportMismatch, match=r"on 70 images: .* \(at most 0.001"):
        export.tflite(build("noisy"), path, check=images)
    assert path.read_bytes() == b"the good one of yesterday"
    assert os.listdir(tmp_path) == ["m.tflite"]


def test_another_tolerance(model, images, tmp_path):
    done = export.tflite(model, tmp_path / "m.tflite", representative=images)
    with pytest.raises(export.ExportMismatch):
        export.tflite(
            model,
            tmp_path / "n.tflite",
            representative=images,
            tolerance=done.relative_error * 0.9,
        )
    assert os.listdir(tmp_path) == ["m.tflite"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "int4"}, "`mode` must be one of"),
        ({"mode": "int8"}, "`representative` is needed for mode 'int8'"),
        ({"io_dtype": "int16"}, "`io_dtype` must be one of"),
        ({"io_dtype": "int8"}, "`io_dtype` 'int8' needs mode \"int8\""),
        ({"tolerance": 0}, "`tolerance` must be a positive share"),
        ({"check": np.zeros((4, 7, 8, 1), np.float32)}, r"have shape \(7, 8, 1\) each"),
        ({"representative": np.zeros((4, 8, 8), np.float32)}, r"have shape \(8, 8\) each"),
        ({"check": np.zeros((0, 8, 8, 1), np.float32)}, "`check` is empty"),
        ({"check": np.full((1, 8, 8, 1), np.nan, np.float32)}, "NaN or infinite"),
    ],
)
def test_wrong_arguments(options, message, model, tmp_path):
    with pytest.raises(ValueError, match=message):
        export.tflite(model, tmp_path / "m.tflite", **options)
    assert os.listdir(tmp_path) == []


def test_wrong_models(build, model, tmp_path):
    path = tmp_path / "m.tflite"
    with pytest.raises(TypeError, match="must be a Keras model to be exported"):
        export.tflite(lambda x: x, path)
    inputs = keras.layers.Input((8, 8, 1))
    flat = keras.layers.Flatten()(inputs)
    with pytest.raises(ValueError, match="ends in a softmax"):
        export.tflite(keras.Model(inputs, keras.layers.Dense(3, "softmax")(flat)), path)
    other = keras.layers.Input((8, 8, 1))
    both = keras.layers.Flatten()(keras.layers.Concatenate()([inputs, other]))
    with pytest.raises(ValueError, match="has 2 inputs"):
        export.tflite(keras.Model([inputs, other], keras.layers.Dense(3)(both)), path)
    with pytest.raises(ValueError, match="has no weights yet"):
        export.tflite(keras.Sequential([keras.layers.Dense(3)]), path)
    with pytest.raises(ValueError, match="Give some images with `check`|Give images of the size"):
        export.tflite(build("subclassed"), path)


def test_an_open_size_takes_that_of_the_images(images, tmp_path):
    layers = keras.layers
    inputs = layers.Input((None, None, 1))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, layers.Dense(3)(pooled))
    with pytest.raises(ValueError, match="inputs of open shape"):
        export.tflite(model, tmp_path / "m.tflite")
    done = export.tflite(model, tmp_path / "m.tflite", check=images)
    assert export.TFLiteModel(done.path).input_shape == (8, 8, 1)


def test_paths_that_cannot_be(model, tmp_path):
    with pytest.raises(ValueError, match="`path` must end in .tflite"):
        export.tflite(model, tmp_path / "m.bin")
    (tmp_path / "d.tflite").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        export.tflite(model, tmp_path / "d.tflite")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="Cannot write .*file/m.tflite"):
        export.tflite(model, tmp_path / "file" / "m.tflite")
    assert sorted(os.listdir(tmp_path)) == ["d.tflite", "file"]


def test_missing_folders_are_made_and_unmade(build, model, tmp_path):
    export.tflite(model, tmp_path / "a" / "b" / "m.tflite")
    assert os.listdir(tmp_path / "a" / "b") == ["m.tflite"]
    with pytest.raises(export.ExportMismatch):
        export.tflite(build("noisy"), tmp_path / "c" / "d" / "m.tflite")
    assert os.listdir(tmp_path) == ["a"]


def test_what_tflite_lacks_is_named(tmp_path):
    class Inverse(keras.layers.Layer):
        def call(self, x):
            return tf.linalg.inv(x[..., 0] + 9.0 * tf.eye(8))[:, 0]

    inputs = keras.layers.Input((8, 8, 1))
    with pytest.raises(ValueError, match="cannot be converted to a float .tflite file.*Inv"):
        export.tflite(keras.Model(inputs, Inverse()(inputs)), tmp_path / "m.tflite")
    assert os.listdir(tmp_path) == []


def test_nothing_is_printed(model, images, tmp_path, capfd):
    export.tflite(model, tmp_path / "m.tflite", representative=images)
    export.TFLiteModel(tmp_path / "m.tflite")(images)
    export.serving(model, tmp_path / "s")
    export.describe(tmp_path / "s")
    assert capfd.readouterr() == ("", "")


def test_layers_that_stay_float(model, images, tmp_path):
    layer = next(layer for layer in model.layers if type(layer).__name__ == "Conv2D")
    path = tmp_path / "mixed.tflite"
    export.tflite(model, path, representative=images, float_layers=[layer.name])
    kinds = [op for op in operations(path) if op.kind in ("CONV_2D", "FULLY_CONNECTED")]
    floats = [op for op in kinds if op.inputs[1].dtype == "FLOAT32"]
    assert len(floats) == 1 < len(kinds)
    kernel = np.asarray(layer.kernel)
    assert floats[0].inputs[1].shape[0] == kernel.shape[-1]
    assert np.abs(export.TFLiteModel(path)(images) - logits(model, images)).max() < 0.1
    with pytest.raises(ValueError, match="no operation of the file is called so"):
        export.tflite(model, path, representative=images, float_layers=["nowhere"])
    settings = {"representative": images, "float_layers": [layer.name]}
    for wrong in ({"representative": None}, {"mode": "int16x8"}, {"io_dtype": "int8"}):
        with pytest.raises(ValueError, match="`float_layers` needs a model that is not"):
            export.tflite(model, path, **settings | wrong)
    with pytest.raises(TypeError, match="`float_layers` must be a sequence of names"):
        export.tflite(model, path, representative=images, float_layers=layer.name)


@pytest.mark.parametrize("name", ["conv2d", "conv2d_1", "conv2d_1_2"])
def test_of_layers_with_numbers_only_the_one_that_is_named_stays_float(name, images, tmp_path):
    names = ("conv2d", "conv2d_1", "conv2d_1_2")
    stack = [keras.layers.Conv2D(4, 3, name=each) for each in names]
    model = keras.Sequential([keras.Input(images.shape[1:]), *stack, keras.layers.Flatten()])
    path = tmp_path / "mixed.tflite"
    export.tflite(model, path, representative=images, float_layers=[name])
    kinds = [op.inputs[1].dtype for op in operations(path) if op.kind == "CONV_2D"]
    assert kinds == ["FLOAT32" if each == name else "INT8" for each in names]


def test_the_last_layer_stays_float(images, tmp_path):
    """Its operation is called as the signature is, not as the layer."""
    model, path = kr.zoo.small_cnn(images.shape[1:], 5, seed=0), tmp_path / "mixed.tflite"
    export.tflite(model, path, representative=images, float_layers=["logits"])
    dense = [op for op in operations(path) if op.kind == "FULLY_CONNECTED"]
    assert [op.inputs[1].dtype for op in dense] == ["INT8", "FLOAT32"]
    assert dense[1].inputs[1].shape == (5, 128)


def test_a_packed_file_becomes_a_tflite_file(cnn, tmp_path):
    model = cnn()
    kr.compress.pack(model, tmp_path / "model.krz")
    kr.export.tflite(tmp_path / "model.krz", tmp_path / "unpacked.tflite")
    kr.export.tflite(model, tmp_path / "model.tflite")
    one, other = (export.TFLiteModel(tmp_path / f"{name}.tflite") for name in ("model", "unpacked"))
    images = np.random.default_rng(0).random((4, *model.input_shape[1:]), np.float32)
    np.testing.assert_array_equal(one(images), other(images))
    with pytest.raises(ValueError, match="`model` must be .* or the path of a .krz file, got"):
        kr.export.tflite(tmp_path / "model.keras", tmp_path / "other.tflite")
