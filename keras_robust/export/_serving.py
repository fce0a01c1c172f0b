"""A Keras classifier as a versioned SavedModel for TensorFlow Serving."""

import pathlib

import numpy as np
import tensorflow as tf

from keras_robust._files import beside, sizes
from keras_robust.export._compare import Exported, check_class_names, compare
from keras_robust.export._quiet import quiet
from keras_robust.export._source import (
    CHUNK,
    Traced,
    as_images,
    check_source,
    input_shape,
    logits_of,
    opened,
)
from keras_robust.export._tflite import CHECK_IMAGES

SIGNATURE = "serving_default"


def serving(model, folder, *, version: int = 1, class_names=None, check=None) -> Exported:
    """Writes `folder/<version>/`, a SavedModel, loads it back and compares it with the model.

    Its one signature, "serving_default", takes "images", `(batch, h, w, c)` float32, and
    returns "logits" and "probabilities", `(batch, classes)` float32, and with `class_names`
    also "classes", `(batch,)` strings. It stays differentiable once loaded, so that it can be
    attacked like the model.

    Args:
        model: a Keras classifier that returns logits, or a file of `kr.compress.pack`.
        folder: the model's folder, which the server watches; made if missing.
        version: a positive integer whose folder does not exist yet.
        class_names: one name a class, in the order of the logits.
        check: images to compare on, an array or a `tf.data.Dataset` of images or
            `(images, labels)`, at most 256; None takes 32 seeded random images in [0, 1].

    Returns:
        `Exported`: sizes, agreement and errors.

    Raises:
        ExportMismatch: the SavedModel computes something else; nothing is left of it.
        ValueError, TypeError: an argument that cannot be, a model that returns probabilities or
            NaN for the images to compare on, or a version that exists.
    """
    folder = pathlib.Path(folder)
    target = _target(folder, version)
    model = opened(model)
    check_source(model)
    images = None if check is None else as_images(check, "check", CHECK_IMAGES)
    shape = input_shape(model, images)
    names = check_class_names(class_names)
    traced = Traced(model, shape, lambda logits: _outputs(logits, names))
    check_class_names(names, traced.concrete.structured_outputs["logits"].shape[-1])
    origin = "check"
    if images is None:
        # Open axes: 32 is as good as any size.
        sizes_ = [32 if n is None else n for n in shape]
        images = np.random.default_rng(0).random((32, *sizes_), dtype=np.float32)
        origin = "random"
    source = logits_of(model, images)
    with beside(target, folder=True) as temporary:
        with quiet():
            tf.saved_model.save(traced, str(temporary), signatures={SIGNATURE: traced.call})
            loaded = tf.saved_model.load(str(temporary)).signatures[SIGNATURE]
        written = np.concatenate(
            [
                loaded(images=tf.constant(images[k : k + CHUNK]))["logits"].numpy()
                for k in range(0, len(images), CHUNK)
            ]
        )
        numbers = compare(source, written, "savedmodel", None)
        size, gzip_size = sizes(temporary)
    return Exported(target, "savedmodel", size, gzip_size, compared_on=origin, **numbers)


def _outputs(logits, names):
    outputs = {"logits": logits, "probabilities": tf.nn.softmax(logits)}
    if names is not None:
        outputs["classes"] = tf.gather(tf.constant(names), tf.argmax(logits, axis=-1))
    return outputs


def versions(folder: pathlib.Path) -> list[int]:
    """The numbers of the version folders in `folder`, in order."""
    return sorted(int(p.name) for p in folder.iterdir() if p.is_dir() and p.name.isdecimal())


def _target(folder: pathlib.Path, version) -> pathlib.Path:
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(
            f"`version` must be a positive integer, got {version!r}: TensorFlow Serving takes "
            "folders named by nothing else."
        )
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`folder` {str(folder)!r} is a file. Give the path of a folder.")
    target = folder / str(version)
    if target.exists():
        free = max(versions(folder), default=0) + 1
        raise ValueError(
            f"Version {version} exists already in {str(folder)!r}, and what is served is never "
            f"overwritten. The next free one is version={free}."
        )
    return target
