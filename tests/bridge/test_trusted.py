"""A hostile architecture builds nothing but layers, and no more of them than the file holds."""

import json
import pathlib
import zlib

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust.compress.packed import _architecture, _file
from keras_robust.compress.packed._bytes import piece, varint
from keras_robust.compress.packed._words import COMMON

layers = keras.layers


def description(model) -> dict:
    return json.loads(_architecture._inflate(_architecture.serialize(model)[1:]))


def forged(tmp_path, architecture: dict, legacy=LEGACY) -> pathlib.Path:
    """A file with a right checksum, this architecture and no weights."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=COMMON)
    text = packer.compress(json.dumps(architecture).encode()) + packer.flush()
    content = _file.MAGIC + bytes([_file.VERSION]) + piece(bytes([legacy]) + text) + varint(0)
    path = tmp_path / "forged.krz"
    path.write_bytes(content + zlib.crc32(content).to_bytes(4, "little"))
    return path


def dense(units=3, inputs=4):
    return keras.Sequential([keras.Input((inputs,)), layers.Dense(units, name="d")])


def operation(function, node) -> dict:
    """A functional model of tf_keras with one TFOpLambda, written by hand."""
    entry = {
        "module": "tf_keras.src.layers.core.tf_op_layer",
        "class_name": "TFOpLambda",
        "config": {"name": "op", "trainable": True, "dtype": "float32", "function": function},
        "registered_name": "TFOpLambda",
        "name": "op",
        "inbound_nodes": [node],
    }
    start = {
        "module": "keras.layers",
        "class_name": "InputLayer",
        "config": {
            "batch_input_shape": [None, 4],
            "dtype": "float32",
            "sparse": False,
            "ragged": False,
            "name": "x",
        },
        "registered_name": None,
        "name": "x",
        "inbound_nodes": [],
    }
    config = {
        "name": "m",
        "trainable": True,
        "layers": [start, entry],
        "input_layers": [["x", 0, 0]],
        "output_layers": [["op", 0, 0]],
    }
    return {
        "module": "tf_keras.src.engine.functional",
        "class_name": "Functional",
        "config": config,
        "registered_name": "Functional",
    }


def test_what_keras_writes_of_operators_comes_back(tmp_path, rng):
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(3, 3, activation="gelu", kernel_regularizer="l2")(inputs)
    x = layers.Activation("swish")(2.0 * x[:, 1:] + 1.0)
    x = layers.Dense(2, kernel_constraint=keras.constraints.MaxNorm(2.0))(layers.Flatten()(x))
    model = keras.Model(inputs, x)
    kr.compress.pack(model, tmp_path / "m.krz")
    images = rng.random((2, 6, 6, 2)).astype("float32")
    found = kr.compress.unpack(tmp_path / "m.krz")(images)
    np.testing.assert_array_equal(found, model(images))


def test_tf_keras_calls_no_function_that_acts(tmp_path):
    """In either Keras: the file says which of the two builds it."""
    pytest.importorskip("tf_keras")
    if LEGACY:  # The bridge to Keras 3 carries no bare operations.
        kr.compress.unpack(forged(tmp_path, operation("nn.relu", ["x", 0, 0, {}]), True))

    target = tmp_path / "made"
    hostile = operation("io.gfile.makedirs", ["_CONSTANT_VALUE", -1, str(target), {}])
    with pytest.raises(ValueError, match="calls the function 'io.gfile.makedirs'"):
        kr.compress.unpack(forged(tmp_path, hostile, True))
    assert not target.exists()

    huge = operation("pad", ["_CONSTANT_VALUE", -1, [1.0], {"paddings": [[0, 10**10]]}])
    # That a constant holds the name of a layer changes nothing.
    nested = operation("nn.relu", ["_CONSTANT_VALUE", -1, {"z": ["x", 0, 0]}, {}])
    # Nor a list that is too long to be an output, nor a layer of the constants' own name.
    long = {"paddings": [[0, 10**10]], "name": ["x", 0, 0, 0, 0]}
    longer = operation("pad", ["_CONSTANT_VALUE", -1, [1.0], long])
    named = json.loads(json.dumps(huge).replace('"name": "x"', '"name": "_CONSTANT_VALUE"'))
    with pytest.raises(ValueError, match="have no names of their own"):
        kr.compress.unpack(forged(tmp_path, named, True))
    for constant in (huge, nested, longer):
        with pytest.raises(ValueError, match="calls 'op' on constants alone"):
            kr.compress.unpack(forged(tmp_path, constant, True))
    # And what is special to Keras 3 is any class to tf_keras.
    sliced = operation("nn.relu", ["x", 0, 0, {}])
    part = {"class_name": "__slice__", "module": "os", "registered_name": "system", "config": "ls"}
    sliced["config"]["layers"][1]["config"]["activation"] = part
    with pytest.raises(ValueError, match="names '__slice__' of 'os'"):
        kr.compress.unpack(forged(tmp_path, sliced, True))


@pytest.mark.parametrize(
    "node",
    [
        ["op", 0, 0, {}],
        ["x", 0, 0, {"y": ["op", 0, 0]}],
        ["x", 0, 0, {"y": ["x", 0, 5]}],  # An output that the layer does not have.
        {"q": ["op", 0, 0, {}]},
    ],
)
def test_a_call_that_waits_for_itself_is_refused(tmp_path, node):
    """Of which tf_keras would try again and again to make sense."""
    pytest.importorskip("tf_keras")
    with pytest.raises(ValueError, match="on what never comes|wait for what never comes"):
        kr.compress.unpack(forged(tmp_path, operation("nn.relu", node), True))


def test_a_registered_name_is_of_that_class(tmp_path):
    """Some ways of tf_keras look at the class's name alone."""
    architecture = description(dense())
    cell = {"class_name": "SimpleRNN", "registered_name": "keras_robust>BinaryDense", "config": {}}
    architecture["config"]["layers"][1]["config"]["kernel_initializer"] = cell
    with pytest.raises(ValueError, match="names 'SimpleRNN' of None, which is not known"):
        kr.compress.unpack(forged(tmp_path, architecture))
    cell["class_name"] = "ResidualWrapper"
    with pytest.raises(ValueError, match="has a ResidualWrapper, which may run code"):
        kr.compress.unpack(forged(tmp_path, architecture))


def test_constants_are_of_plain_dtypes(tmp_path):
    architecture = description(dense())
    huge = {"class_name": "__numpy__", "config": {"value": [0.0], "dtype": "(10000000000,)f8"}}
    architecture["config"]["layers"][1]["config"]["kernel_initializer"] = huge
    with pytest.raises(ValueError, match="constant of dtype '.10000000000,.f8'"):
        kr.compress.unpack(forged(tmp_path, architecture))


def test_a_dictionary_of_inputs_comes_back(tmp_path):
    inputs = {name: keras.Input((3,), name=name) for name in ("a", "b")}
    x = layers.Dense(2)(layers.Concatenate()([inputs["a"], inputs["b"]]))
    inner = keras.Model(inputs, x)
    model = keras.Model(inputs, layers.Dense(4)(inner(inputs)))
    kr.compress.pack(model, tmp_path / "m.krz")
    values = {name: np.random.default_rng(0).random((2, 3)).astype("f4") for name in inputs}
    np.testing.assert_array_equal(kr.compress.unpack(tmp_path / "m.krz")(values), model(values))


def test_layers_of_one_name_are_refused(tmp_path):
    pytest.importorskip("tf_keras")
    twice = operation("nn.relu", ["x", 0, 0, {}])
    twice["config"]["layers"].append(twice["config"]["layers"][1])
    with pytest.raises(ValueError, match="layers have no names of their own"):
        kr.compress.unpack(forged(tmp_path, twice, True))


def test_what_could_not_be_unpacked_is_not_packed(tmp_path):
    class Own(layers.Dense):
        """Found by its module here, and not by `unpack`, which imports none."""

    globals()["Own"] = Own
    Own.__qualname__ = "Own"
    model = keras.Sequential([keras.Input((3,)), Own(2)])
    with pytest.raises(ValueError, match="Own.*keras.saving.register_keras_serializable"):
        kr.compress.pack(model, tmp_path / "m.krz")
    assert not (tmp_path / "m.krz").exists()


@pytest.mark.skipif(not LEGACY, reason="functions of TensorFlow in a graph are tf_keras's")
def test_pure_functions_of_tensorflow_come_back(tmp_path):
    inputs = keras.Input((4, 4, 2))
    x = tf.image.resize(inputs, (6, 6))
    x = tf.tile(x, [1, 1, 1, 2]) + tf.zeros_like(inputs[:, :1, :1, :1])
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    kr.compress.pack(model, tmp_path / "m.krz")
    images = np.random.default_rng(0).random((2, 4, 4, 2)).astype("float32")
    np.testing.assert_array_equal(kr.compress.unpack(tmp_path / "m.krz")(images), model(images))


@pytest.mark.skipif(LEGACY, reason="of Keras 3")
def test_a_model_that_keras_quantized_comes_back(tmp_path):
    model = dense()
    model.quantize("int8")
    kr.compress.pack(model, tmp_path / "m.krz")
    x = np.random.default_rng(0).random((3, 4)).astype("float32")
    np.testing.assert_array_equal(kr.compress.unpack(tmp_path / "m.krz")(x), model(x))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"class_name": "Lambda", "module": "keras.layers"}, "has a Lambda, which may run code"),
        ({"class_name": "TFSMLayer", "module": "keras.layers"}, "has a TFSMLayer"),
        ({"class_name": "__lambda__", "config": {"value": ""}}, "has a __lambda__"),
        (
            {
                "class_name": "StringLookup",
                "module": "keras.layers",
                "config": {"vocabulary": "/etc/hostname"},
            },
            "StringLookup reads a file",
        ),
        ({"class_name": "Popen", "module": "subprocess"}, "names 'Popen' of 'subprocess'"),
        ({"class_name": "get_file", "module": "keras.utils"}, "names 'get_file' of 'keras.utils'"),
        (
            {"class_name": "function", "module": "os", "config": "system"},
            "names 'function' of 'os'",
        ),
        ({"class_name": "function", "module": "shelve", "config": "get"}, "of 'shelve'"),
        (
            {"class_name": "Mine", "module": "m", "registered_name": "mine>Mine"},
            "'Mine' of 'm', which is not known.* Import the code of its own layers",
        ),
        ({"class_name": 3}, "names the class 3"),
        # Keras would import the module, and take what is registered under the other name.
        ({"class_name": "__x", "module": "os", "registered_name": "system"}, "'__x' of 'os'"),
        ({"class_name": "Dense", "module": "os", "registered_name": "system"}, "'Dense' of 'os'"),
        (
            {"class_name": "Dense", "module": "keras.layers", "registered_name": "load_model"},
            "names 'Dense' of 'keras.layers'",
        ),
        (
            {"class_name": "keras_robust>BinaryDense", "module": "os", "registered_name": None},
            "of 'os', which is not known",
        ),
        # Functions of Keras that make what a config says, and a layer that runs any operation.
        ({"class_name": "deserialize", "module": "keras.layers"}, "names 'deserialize'"),
        (
            {"class_name": "function", "module": "builtins", "config": "deserialize"},
            "names 'function' of 'builtins'",
        ),
        (
            {"class_name": "TensorFlowOpLayer", "module": "tf_keras.src.engine.base_layer"},
            "has a TensorFlowOpLayer, which may",
        ),
        (
            {"class_name": "ClassMethod", "module": "tf_keras.src.layers.core.tf_op_layer"},
            "has a ClassMethod, which may",
        ),
    ],
)
def test_anything_but_parts_of_models_is_refused(tmp_path, entry, message):
    architecture = description(dense())
    architecture["config"]["layers"][1]["config"]["kernel_initializer"] = entry
    with pytest.raises(ValueError, match=message):
        kr.compress.unpack(forged(tmp_path, architecture))


def test_a_registered_layer_is_trusted(tmp_path):
    @keras.saving.register_keras_serializable("test_trusted")
    class Twice(layers.Layer):
        def call(self, inputs):
            return inputs * 2.0

    model = keras.Sequential([keras.Input((3,)), Twice(), layers.Dense(2)])
    kr.compress.pack(model, tmp_path / "m.krz")
    x = np.ones((1, 3), "float32")
    np.testing.assert_array_equal(kr.compress.unpack(tmp_path / "m.krz")(x), model(x))


def test_weights_that_the_file_does_not_hold_are_never_made(tmp_path, monkeypatch):
    text = json.dumps(description(dense(3, 10)))
    huge = json.loads(text.replace('"units": 3', '"units": 40000').replace("10]", "40000]"))

    def draw(self, shape, dtype=None, **kwargs):
        assert not tf.executing_eagerly(), "weights were drawn"
        return tf.zeros(shape)

    monkeypatch.setattr(keras.initializers.GlorotUniform, "__call__", draw)
    with pytest.raises(ValueError, match="asks for 6,400,0.* bytes .* and holds 0"):
        kr.compress.unpack(forged(tmp_path, huge))
