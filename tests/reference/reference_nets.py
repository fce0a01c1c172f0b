"""Small networks as plain data: a list of layers and arrays, for Keras here and torch elsewhere.

A net is `(layers, arrays)`: `layers` a list of dicts with a `kind`, `arrays` the kernels and
biases by layer name, convolution kernels as `(height, width, in, out)` and dense kernels after
a channels-last flatten. `benchmarks/_torch_twin.py` builds the same net in torch.
"""

import json
import pathlib

import numpy as np

NETS = pathlib.Path(__file__).with_name("data") / "autoattack_nets.npz"


def small_layers(scale: float) -> list[dict]:
    """Two strided convolutions, two dense layers, and the logits times `scale`."""
    return [
        {"kind": "affine", "scale": 2.0, "offset": -1.0},
        {"kind": "conv", "name": "conv1", "stride": 2, "padding": "same"},
        {"kind": "relu"},
        {"kind": "conv", "name": "conv2", "stride": 2, "padding": "same"},
        {"kind": "relu"},
        {"kind": "flatten"},
        {"kind": "dense", "name": "dense1"},
        {"kind": "relu"},
        {"kind": "dense", "name": "logits"},
        {"kind": "affine", "scale": scale, "offset": 0.0},
    ]


def load(name: str, path=NETS) -> tuple[list[dict], dict[str, np.ndarray]]:
    """The net `name` of an .npz that `save` wrote."""
    with np.load(path, allow_pickle=False) as file:
        layers = json.loads(str(file[f"{name}/layers"]))
        arrays = {
            key.partition("/")[2]: file[key].astype(np.float32)
            for key in file.files
            if key.startswith(f"{name}/") and key != f"{name}/layers"
        }
    return layers, arrays


def save(nets: dict, path=NETS, dtype=np.float16) -> None:
    """Writes name -> (layers, arrays)."""
    content = {}
    for name, (layers, arrays) in nets.items():
        content[f"{name}/layers"] = np.array(json.dumps(layers))
        content.update({f"{name}/{key}": value.astype(dtype) for key, value in arrays.items()})
    np.savez_compressed(path, **content)


def keras_model(layers, arrays, input_shape=(28, 28, 1)):
    """The net as a functional Keras model with logits."""
    from keras_robust._keras import keras

    made = keras.layers
    inputs = x = keras.Input(input_shape)
    named = {}
    for layer in layers:
        kind, name = layer["kind"], layer.get("name")
        if kind == "affine":
            x = made.Rescaling(layer["scale"], layer["offset"])(x)
        elif kind == "relu":
            x = made.ReLU()(x)
        elif kind == "pool":
            x = made.MaxPooling2D(layer["size"])(x)
        elif kind == "flatten":
            x = made.Flatten()(x)
        elif kind == "dense":
            named[name] = made.Dense(arrays[f"{name}/kernel"].shape[1], name=name)
            x = named[name](x)
        else:
            kernel = arrays[f"{name}/kernel"]
            named[name] = made.Conv2D(
                kernel.shape[3], kernel.shape[:2], layer["stride"], layer["padding"], name=name
            )
            x = named[name](x)
    model = keras.Model(inputs, x)
    for name, layer in named.items():
        layer.set_weights([arrays[f"{name}/kernel"], arrays[f"{name}/bias"]])
    return model


def logits_in_float64(layers, arrays, x) -> np.ndarray:
    """`(batch, classes)` logits of the net for `(batch, h, w, c)`, all computed in float64."""
    import tensorflow as tf

    x = tf.cast(x, tf.float64)
    for layer in layers:
        kind = layer["kind"]
        if kind == "affine":
            x = x * layer["scale"] + layer["offset"]
        elif kind == "relu":
            x = tf.nn.relu(x)
        elif kind == "pool":
            x = tf.nn.max_pool2d(x, layer["size"], layer["size"], "VALID")
        elif kind == "flatten":
            x = tf.reshape(x, [len(x), -1])
        else:
            kernel, bias = (
                arrays[f"{layer['name']}/{part}"].astype(np.float64) for part in ("kernel", "bias")
            )
            if kind == "dense":
                x = x @ kernel + bias
            else:
                x = tf.nn.conv2d(x, kernel, layer["stride"], layer["padding"].upper()) + bias
    return x.numpy()
