"""A Keras classifier as a `.tflite` file, compared with its source once written."""

import pathlib
import re
import warnings
import zipfile

import numpy as np
import tensorflow as tf

from keras_robust._files import beside, sizes
from keras_robust._keras import LEGACY
from keras_robust.export import _flatbuffer
from keras_robust.export._compare import (
    TOLERANCES,
    Exported,
    check_class_names,
    check_tolerance,
    compare,
)
from keras_robust.export._interpreter import TFLiteModel
from keras_robust.export._mixed import left_in_float, with_float_layers
from keras_robust.export._precision import computes_in_half, in_float32
from keras_robust.export._quiet import quiet
from keras_robust.export._source import (
    CHUNK,
    Traced,
    as_images,
    check_shape,
    check_source,
    input_shape,
    logits_of,
    opened,
)

MODES = ("float", "dynamic", "float16", "int8", "int16x8")
CALIBRATED = ("int8", "int16x8")
IO_DTYPES = {"float32": tf.float32, "int8": tf.int8, "uint8": tf.uint8}
CALIBRATION_IMAGES = 500
CHECK_IMAGES = 256
LABELS = "labels.txt"
# The model itself rounds to bfloat16's 8 bits or float16's 11 then, its file does not.
HALF_TOLERANCE = 5e-2


def tflite(
    model,
    path,
    *,
    representative=None,
    mode: str | None = None,
    check=None,
    io_dtype: str = "float32",
    class_names=None,
    tolerance: float | None = None,
    float_layers=(),
) -> Exported:
    """Writes `model` as a `.tflite` file, runs it, and compares it with the model.

    The file takes one image by default and can be resized to any batch. It is written
    beside `path` and renamed, so that a failure leaves what was there.

    Args:
        model: a Keras classifier, images `(batch, h, w, c)` to logits `(batch, classes)`;
            functional, sequential, subclassed or fake-quantized by TF-MOT. One of mixed
            precision is written as float32. Or the path of a file of `kr.compress.pack`.
        path: where the file goes; ends in ".tflite".
        representative: images that int8 is calibrated on, an array `(n, h, w, c)` or a
            `tf.data.Dataset` of images or `(images, labels)`, as the model takes them; at
            most 500 are used. A fake-quantized model carries its ranges and needs none.
        mode: "float"; "dynamic" (int8 weights, float activations); "float16" (weights);
            "int8" (all of it); "int16x8" (int8 weights, int16 activations: nearly float's
            accuracy, slower than int8). None takes "int8" for a fake-quantized model or when
            `representative` is given, else "float".
        check: images to compare on, as `representative`, at most 256; None takes those of
            `representative`, else 32 seeded random images in [0, 1].
        io_dtype: "float32", or "int8" or "uint8" for an int8 file that takes and returns
            quantized numbers.
        class_names: one a class; kept in the file as "labels.txt", which `unzip` gets out.
        tolerance: the largest relative error; None takes the mode's (see `Exported`).
        float_layers: names of layers that compute in float in an int8 file that is calibrated
            on `representative`, for instance those that `kr.compress.sensitivity` finds. A model
            of `kr.compress.Quantize(float_layers=...)` has its own, which are float in the file.

    Returns:
        `Exported`: sizes, agreement and errors.

    Raises:
        ExportMismatch: the file computes something else; nothing is left at `path`.
        ValueError, TypeError: an argument that cannot be; a model that returns probabilities or
            NaN for the images to compare on, or that the converter refuses.
    """
    path = pathlib.Path(path)
    _check_arguments(path, mode, io_dtype, tolerance)
    model = opened(model)
    check_source(model)
    calibration = None
    if representative is not None:
        calibration = as_images(representative, "representative", CALIBRATION_IMAGES)
    images = None if check is None else as_images(check, "check", CHECK_IMAGES)
    known = images if images is not None else calibration
    shape = input_shape(model, known)
    if calibration is not None:
        check_shape(calibration, shape, "representative")
    if None in shape:
        if known is None:
            raise ValueError(
                f"`model` takes inputs of open shape {shape}, but a .tflite file has a fixed one. "
                "Give images of the size that it should take with `check`."
            )
        shape = tuple(known.shape[1:])
    traced, half = Traced(model, shape, _outputs), False
    if computes_in_half(traced.concrete.graph):
        traced, half = Traced(in_float32(model), shape, _outputs), True
    classes = traced.concrete.structured_outputs["logits"].shape[-1]
    names = check_class_names(class_names, classes)
    mode = _mode(mode, traced.fake_quantized(), calibration, io_dtype)
    if isinstance(float_layers, str):
        raise TypeError(f"`float_layers` must be a sequence of names, write [{float_layers!r}].")
    if float_layers and (mode != "int8" or io_dtype != "float32" or traced.fake_quantized()):
        raise ValueError(
            "`float_layers` needs a model that is not fake-quantized, `representative`, mode "
            f"'int8' and io_dtype 'float32', got mode {mode!r} and {io_dtype!r}: the converter can "
            "spare layers in no other. A fake-quantized model has the layers in float that "
            "Quantize(float_layers=...) left."
        )
    named = {layer.name for layer in getattr(model, "_flatten_layers", list)()}
    images, origin = _images(images, calibration, shape)
    if tolerance is None and half:
        tolerance = max(TOLERANCES[mode], HALF_TOLERANCE)
    source = logits_of(model, images)
    with beside(path, folder=False) as temporary:
        content = _convert(traced, mode, calibration, io_dtype, float_layers, named)
        meant, unrounded = left_in_float(model) if traced.fake_quantized() else (0, 0)
        if meant:
            plain = _convert(traced, "float", None, "float32")
            content = with_float_layers(content, plain)
        temporary.write_bytes(content)
        if names is not None:
            _append_labels(temporary, names)
        written = TFLiteModel(temporary)(images)
        numbers = compare(source, written, mode, tolerance)
        left = _flatbuffer.float_ops(temporary.read_bytes()) if mode == "int8" else ()
        size, gzip_size = sizes(temporary)
    heavy = [op for op in left if op.startswith(("CONV", "DEPTHWISE", "FULLY", "BATCH_MATMUL"))]
    if heavy and not float_layers and not 0 < unrounded == meant:
        warnings.warn(
            f"The int8 file {str(path)!r} still computes {len(heavy)} convolutions or dense layers "
            f"in float ({heavy[0]}). Quantize these layers too, or give `representative`.",
            stacklevel=2,
        )
    return Exported(path, mode, size, gzip_size, compared_on=origin, float_ops=left, **numbers)


def _outputs(logits):
    return {"logits": logits}


def _check_arguments(path, mode, io_dtype, tolerance) -> None:
    if path.suffix != ".tflite":
        raise ValueError(f"`path` must end in .tflite, got {str(path)!r}.")
    if path.is_dir():
        raise ValueError(f"`path` {str(path)!r} is a folder. Give the path of a file in it.")
    if mode is not None and mode not in MODES:
        raise ValueError(f"`mode` must be one of {MODES} or None, got {mode!r}.")
    if io_dtype not in IO_DTYPES:
        raise ValueError(f"`io_dtype` must be one of {tuple(IO_DTYPES)}, got {io_dtype!r}.")
    check_tolerance(tolerance)


def _mode(mode, fake_quantized: bool, calibration, io_dtype: str) -> str:
    if mode is None:
        mode = "int8" if fake_quantized or calibration is not None else "float"
    if fake_quantized and mode != "int8":
        raise ValueError(
            f'`mode` must be "int8" for a fake-quantized model, got {mode!r}: it was trained for '
            "int8. Export the model from before its quantization for another mode."
        )
    if mode in CALIBRATED and not fake_quantized and calibration is None:
        raise ValueError(
            f"`representative` is needed for mode {mode!r} of a model that is not fake-quantized: "
            "its activations are calibrated on it. Give a few hundred training images."
        )
    if mode != "int8" and io_dtype != "float32":
        raise ValueError(f'`io_dtype` {io_dtype!r} needs mode "int8", got mode {mode!r}.')
    return mode


def _images(images, calibration, shape) -> tuple[np.ndarray, str]:
    if images is not None:
        return images, "check"
    if calibration is not None:
        return calibration[:CHECK_IMAGES], "representative"
    return np.random.default_rng(0).random((32, *shape), dtype=np.float32), "random"


def _convert(traced, mode, calibration, io_dtype, float_layers=(), named=()) -> bytes:
    """The file of a `Traced` model; `named` are the names of its layers."""
    calibrated = mode in CALIBRATED and not traced.fake_quantized()
    ops = tf.lite.OpsSet
    int8 = ops.TFLITE_BUILTINS_INT8
    if mode == "int16x8":
        int8 = ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    # All int8 where that can be; an operation without an int8 kernel stays float otherwise.
    choices = [[ops.TFLITE_BUILTINS]]
    if float_layers:
        spared = _operations_of(float_layers, named, _convert(traced, "float", None, io_dtype))
        choices = [[int8, ops.TFLITE_BUILTINS]]
    elif calibrated:
        choices = [[int8], [int8, ops.TFLITE_BUILTINS]]
    for choice in choices:
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.concrete], traced)
        converter.target_spec.supported_ops = choice
        if mode != "float":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if mode == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if calibrated:
            converter.representative_dataset = lambda: (
                [calibration[k : k + CHUNK]] for k in range(0, len(calibration), CHUNK)
            )
        if io_dtype != "float32":
            converter.inference_input_type = IO_DTYPES[io_dtype]
            converter.inference_output_type = IO_DTYPES[io_dtype]
        try:
            with quiet():
                return _sparing(converter, spared) if float_layers else converter.convert()
        except Exception as error:  # The converter raises a dozen private kinds.
            failure = error
    reason = next((line for line in str(failure).splitlines() if "error" in line), str(failure))
    raise ValueError(
        f"`model` cannot be converted to a {mode} .tflite file: {reason[:500]}. Replace the layer "
        "that computes this with one of TFLite's own operations."
    ) from failure


def _operations_of(layers, named, content: bytes) -> list[str]:
    """Names of the operations of `layers`, of all that are `named`, in a float file."""
    heads = {}
    for op in _flatbuffer.operations(content):
        if op.outputs:
            name = op.outputs[0].name
            # The last one is called as the signature is; its kernel has the layer's name.
            last = name.startswith("StatefulPartitionedCall")
            heads[name] = [t.name for t in op.inputs if t.constant] if last else [name]
    found = []
    for layer in layers:
        own = [
            head
            for head, names in heads.items()
            if any(_layer_of(part, {layer, *named}) == layer for n in names for part in _parts(n))
        ]
        if not own:
            raise ValueError(
                f"`float_layers` names {layer!r}, but no operation of the file is called so. Its "
                f"operations: {sum(heads.values(), [])}."
            )
        found += own
    return found


def _parts(name: str) -> list[str]:
    return re.split("[/;:]", name)


def _layer_of(part: str, named) -> str | None:
    """The layer that a part of an operation's name is called after: "conv_1" may be two."""
    # Keras 3 puts a number behind a layer's own name.
    choices = [re.sub(r"_\d+$", "", part), part]
    return next((name for name in (choices[::-1] if LEGACY else choices) if name in named), None)


def _sparing(converter, names: list[str]) -> bytes:
    """What `converter` makes of all operations but those of `names`, which stay float."""
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=names)
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter,
        debug_dataset=converter.representative_dataset,
        debug_options=options,
    )
    return debugger.get_nondebug_quantized_model()


def _append_labels(path: pathlib.Path, names: list[str]) -> None:
    # As TFLite's own metadata tool does: a zip after the flatbuffer, which readers skip.
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(LABELS), "\n".join(names) + "\n")
