"""One seam for everything that maps inputs to logits: models, callables, folders, files."""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from keras_robust._checks import check_logit_model
from keras_robust._files import sizes
from keras_robust._keras import is_model
from keras_robust.compress.packed import unpack
from keras_robust.evaluation import _sizes
from keras_robust.evaluation._endpoint import Endpoint, is_url

KINDS = {
    "keras": "Keras model",
    "callable": "callable",
    "saved_model": "SavedModel",
    "tflite": ".tflite file",
    "packed": "packed file",
    "endpoint": "served endpoint",
}
_WARM_UP = 5
# Divides the usual batch of 250, so that the interpreter is not resized all the time.
_TFLITE_BATCH = 50


@dataclasses.dataclass(frozen=True, eq=False)
class Artifact:
    """Something that can be evaluated.

    Attributes:
        name: what the user calls it.
        kind: "keras", "callable", "saved_model", "tflite", "packed" or "endpoint".
        predict: numpy float32 `(batch, ...)` -> numpy float32 logits `(batch, classes)`.
        gradient_model: a TensorFlow callable for white-box attacks, None when there is none.
        straight_through: the same with rounding passed through in the gradient, None where
            that alters nothing.
        no_gradient: share of the images looked at whose gradient is exactly zero or missing.
        measure: `input_shape -> (bytes, gzip bytes, what was measured)`, None when nothing can be.
        latency_ms: `(image (1, ...), runs) -> median milliseconds` of a batch of one, warm.
        origin: the object or path that was given.
    """

    name: str
    kind: str
    predict: Callable
    gradient_model: Callable | None
    measure: Callable | None
    latency_ms: Callable
    origin: object
    straight_through: Callable | None = None
    no_gradient: float = 0.0

    def sizes(self, input_shape) -> dict:
        """`bytes`, `gzip_bytes` and `size_of`; None each when there is nothing to measure."""
        keys = ("bytes", "gzip_bytes", "size_of")
        values = self.measure(input_shape) if self.measure else (None, None, None)
        return dict(zip(keys, values, strict=True))


def open_artifact(name: str, value, argument: str) -> Artifact:
    """Makes an `Artifact` of a model, a callable, a path or the address of an endpoint.

    Raises:
        TypeError: none of these, or a model of the Keras that does not run.
        ValueError: missing or broken file, softmax outputs, no usable signature.
    """
    if is_url(value):
        return _open_endpoint(name, value, argument)
    if isinstance(value, (str, Path)):
        return _open_path(name, Path(value), argument)
    check_logit_model(value, argument)
    if is_model(value):
        if not value.built:
            raise ValueError(
                f"`{argument}` has no weights yet. Train it, load its weights, or call it on a "
                "batch first."
            )
        predict = _compiled(lambda x: value(x, training=False))
        measure = functools.partial(_sizes.model_sizes, value)
        return Artifact(name, "keras", predict, value, measure, _timer(predict), value)
    predict = _compiled(value)
    return Artifact(name, "callable", predict, value, None, _timer(predict), value)


def _open_path(name, path, argument):
    if not path.exists():
        raise ValueError(
            f"`{argument}` is {str(path)!r}, which does not exist. Give the path of a .tflite or "
            ".krz file, or of a SavedModel folder."
        )
    if path.is_dir():
        return _open_saved_model(name, _newest_version(path, argument), argument)
    if path.suffix == ".tflite":
        return _open_tflite(name, path, argument)
    if path.suffix == ".krz":
        return _open_packed(name, path, argument)
    fix = (
        f"Load it first: keras.models.load_model({path.name!r}, compile=False)."
        if path.suffix in (".keras", ".h5")
        else "Give a .tflite or .krz file, a SavedModel folder, a Keras model, a callable or a URL."
    )
    raise ValueError(f"`{argument}` is {str(path)!r}, a file of no kind known here. {fix}")


def _open_packed(name, path, argument):
    try:
        found = open_artifact(name, unpack(path), argument)
    except ValueError as error:
        raise ValueError(f"`{argument}`: {error}") from error
    return dataclasses.replace(
        found, kind="packed", measure=lambda shape: (*sizes(path), "the packed file"), origin=path
    )


def _newest_version(path: Path, argument: str) -> Path:
    """The SavedModel in `path`: itself, or its sub-folder with the highest number."""
    if (path / "saved_model.pb").exists():
        return path
    versions = [p for p in path.iterdir() if p.name.isdigit() and (p / "saved_model.pb").exists()]
    if not versions:
        raise ValueError(
            f"`{argument}` is the folder {str(path)!r}, which is no SavedModel: it holds neither "
            "saved_model.pb nor a numbered version folder with one."
        )
    return max(versions, key=lambda p: int(p.name))


def _open_saved_model(name, path, argument):
    try:
        loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise ValueError(
            f"`{argument}`: the SavedModel {str(path)!r} could not be loaded ({_line(error)}). "
            "Export it again."
        ) from error
    call = _signature_call(loaded, path, argument)
    predict = _compiled(call)
    return Artifact(
        name,
        "saved_model",
        predict,
        call,
        lambda shape: (*sizes(path), "all files of the SavedModel"),
        _timer(predict),
        path,
    )


def _signature_call(loaded, path, argument):
    """`x -> logits` through the serving signature."""
    signatures = dict(loaded.signatures)
    if not signatures:
        raise ValueError(
            f"`{argument}`: the SavedModel {str(path)!r} has no signature. Export it with "
            "kr.export.serving(model, folder)."
        )
    signature = signatures.get("serving_default") or signatures[sorted(signatures)[0]]
    inputs = signature.structured_input_signature[1]
    if len(inputs) != 1 or not next(iter(inputs.values())).dtype.is_floating:
        raise ValueError(
            f"`{argument}`: the signature of {str(path)!r} must take one floating-point input, "
            f"got {inputs}."
        )
    ((key, spec),) = inputs.items()
    if spec.shape.rank and spec.shape[0] is not None:
        raise ValueError(
            f"`{argument}`: the signature of {str(path)!r} takes batches of exactly "
            f"{spec.shape[0]}. Export it with a batch axis of None."
        )
    outputs = signature.structured_outputs
    floating = sorted(
        k for k, v in outputs.items() if v.dtype.is_floating and v.shape.rank in (2, None)
    )
    chosen = "logits" if "logits" in floating else floating[0] if len(floating) == 1 else None
    if chosen is None:
        raise ValueError(
            f"`{argument}`: the signature of {str(path)!r} must have one floating-point output "
            f"(batch, classes), or one called 'logits', got {sorted(outputs)}."
        )
    # `loaded` owns the variables, which go with it: the closure keeps it.
    return lambda x, _owner=loaded: signature(**{key: tf.cast(x, spec.dtype)})[chosen]


def _open_tflite(name, path, argument):
    from keras_robust.export._interpreter import TFLiteModel

    try:
        model = TFLiteModel(path, batch_size=_TFLITE_BATCH)
    except ValueError as error:
        raise ValueError(f"`{argument}`: {error}") from error
    return Artifact(
        name,
        "tflite",
        model,
        None,
        lambda shape: (*sizes(path), "the .tflite file"),
        lambda image, runs: TFLiteModel(path, threads=1).latency_ms(image, runs),
        path,
    )


def _open_endpoint(name, url, argument):
    try:
        endpoint = Endpoint(url)
    except ValueError as error:
        raise ValueError(f"`{argument}`: {error}") from error
    return Artifact(name, "endpoint", endpoint, None, None, _timer(endpoint), endpoint.url)


def _compiled(call):
    """`call` from numpy to numpy, traced once for each shape."""
    traced = tf.function(lambda x: tf.cast(call(x), tf.float32), autograph=False)
    ready = {}

    def predict(x):
        # Traced by name: TensorFlow counts the calls of all artifacts together, and would warn
        # of too much retracing when there are many.
        if x.shape not in ready:
            ready[x.shape] = traced.get_concrete_function(tf.TensorSpec(x.shape, tf.float32))
        return ready[x.shape](tf.constant(x, tf.float32)).numpy()

    return predict


def _timer(predict):
    """Times `predict` on one image, the call from and to numpy included."""

    def latency_ms(image, runs: int) -> float:
        for _ in range(_WARM_UP):
            predict(image)
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            predict(image)
            times.append(time.perf_counter() - start)
        return 1000 * statistics.median(times)

    return latency_ms


def _line(error) -> str:
    """First line of an error's text, short enough to quote."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200].rstrip(".")
