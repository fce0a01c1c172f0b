"""A model without its weights: what Keras says of it, as few bytes, and back."""

import json
import zlib

from keras_robust._keras import LEGACY, keras
from keras_robust._random_state import keep_random_state
from keras_robust.bridge import from_keras3, to_keras3
from keras_robust.bridge._kerases import keras_3, tf_keras
from keras_robust.bridge._limits import at_most
from keras_robust.bridge._trusted import Untrusted, check_trusted, forget_training
from keras_robust.compress.packed._bytes import Damaged
from keras_robust.compress.packed._quantized import is_quantized, scope
from keras_robust.compress.packed._words import COMMON
from keras_robust.layers import introduce

_MOST_BYTES = 1 << 26


@keep_random_state()
def serialize(model) -> bytes:
    """The architecture of `model`; raises `ValueError` naming a layer that cannot be rebuilt."""
    quantized = is_quantized(model)
    with scope(quantized):
        check(model)
        description = keras.saving.serialize_keras_object(model)
        forget_training(description)
        try:
            check_trusted(json.loads(json.dumps(description)), keras)
        except ValueError as error:
            raise ValueError(
                f"`model` {model.name!r} could not be unpacked again: {error}. Register layers and "
                "functions of your own with keras.saving.register_keras_serializable."
            ) from error
    description.pop("build_config", None)
    if quantized:
        # TF-MOT's layers would make their variables twice: in `build`, and when called.
        for layer in description["config"]["layers"]:
            layer.pop("build_config", None)
    text = json.dumps(description, separators=(",", ":"), sort_keys=True).encode()
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=COMMON)
    return bytes([LEGACY + 2 * quantized]) + packer.compress(text) + packer.flush()


def check(model) -> None:
    """Raises `ValueError`, naming the layer, when `model` could not be built from its config."""
    kind = type(model).__name__
    if kind not in ("Sequential", "Functional"):
        raise ValueError(
            f"`model` {model.name!r} is a subclassed model ({kind}), of which no file can tell how "
            "it is built. Build it with the functional API: keras.Model(inputs, outputs)."
        )
    if not model.built or not model.inputs:
        raise ValueError(
            f"`model` {model.name!r} has no weights yet. Build it first, for instance with an "
            "Input as its first layer."
        )
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            check(layer)
            continue
        try:
            text = json.dumps(keras.saving.serialize_keras_object(layer))
            keras.saving.deserialize_keras_object(json.loads(text), safe_mode=True)
        except Exception as error:  # Keras and a layer's own code raise what they like.
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) of `model` cannot be built from "
                "its config: register it with keras.saving.register_keras_serializable, and let "
                f"get_config return all its arguments; Lambda layers cannot be packed. ({error})"
            ) from error


def written_by_legacy(content: bytes) -> bool:
    """Whether tf_keras wrote the architecture, else Keras 3."""
    if not content or content[0] > 3:
        raise Damaged("its architecture is of no known kind")
    return bool(content[0] & 1)


@keep_random_state()
def rebuild(content: bytes, most: int):
    """The model of the Keras that wrote the architecture, its weights not yet set.

    Raises:
        ValueError: it cannot be built, names what may act on the machine that builds it, or asks
            for weights of more than `most` bytes.
    """
    legacy, text = written_by_legacy(content), _inflate(content[1:])
    package = tf_keras() if legacy else keras_3()
    introduce(package)
    try:
        description = json.loads(text)
        with scope(bool(content[0] & 2)), at_most(most):
            forget_training(description)  # Files of before have that of inner models.
            check_trusted(description, package)
            model = package.saving.deserialize_keras_object(description, safe_mode=True)
        if not isinstance(model, package.Model):
            raise ValueError(f"it is a {type(model).__name__}, no model")
    except (Damaged, Untrusted):
        raise
    except Exception as error:
        raise ValueError(
            f"its architecture, of {'tf_keras' if legacy else 'Keras 3'}, cannot be built: "
            f"{str(error).strip()[:500]}. Import the code of its own layers first"
        ) from error
    return model


def for_this_keras(model, legacy: bool):
    """`model` itself, or rebuilt for the Keras that runs."""
    if legacy == LEGACY:
        return model
    return to_keras3(model) if legacy else from_keras3(model)


def _inflate(content: bytes) -> bytes:
    unpacker = zlib.decompressobj(-15, zdict=COMMON)
    try:
        text = unpacker.decompress(content, _MOST_BYTES)
    except zlib.error as error:
        raise Damaged(f"its architecture cannot be read ({error})") from error
    if not unpacker.eof or unpacker.unused_data:
        raise Damaged("its architecture does not end where it should")
    return text
