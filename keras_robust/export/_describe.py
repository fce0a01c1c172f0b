"""What an exported artifact holds: a `.tflite` file or a SavedModel folder."""

import collections
import pathlib
import zipfile

import numpy as np
import tensorflow as tf

from keras_robust._files import sizes
from keras_robust.export import _flatbuffer
from keras_robust.export._interpreter import load
from keras_robust.export._quiet import quiet
from keras_robust.export._serving import versions
from keras_robust.export._tflite import LABELS


class Description(dict):
    """A plain dict of plain values; `str` of it is a text for people."""

    def __str__(self) -> str:
        return "\n".join(_tflite_text(self) if self["kind"] == "tflite" else _saved_text(self))


def describe(path) -> Description:
    """What is in a `.tflite` file or a SavedModel folder.

    Args:
        path: a file ending in ".tflite"; a SavedModel; or a folder of numbered versions.

    Returns:
        A dict, whose `str` is a readable text. For a file: "kind" ("tflite"), "path",
        "bytes", "gzip_bytes", "inputs" and "outputs" (lists of name, shape with None for an
        open axis, dtype, and scale and zero_point or None), "ops" (count by kind),
        "float_ops", "parameters", "weights" (of each tensor: name, dtype, shape,
        per_channel, sparsity in [0, 1], distinct, the number of distinct stored values) and
        "class_names" (or None). For a folder: "kind" ("savedmodel"), "path" and "versions",
        by number (None for a SavedModel given itself): "bytes", "gzip_bytes" and
        "signatures", each with the shape and dtype of its inputs and outputs.

    Raises:
        ValueError: nothing there, another kind of file, or a damaged one.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return _describe_folder(path)
    if not path.exists():
        raise ValueError(f"{str(path)!r} is missing. Give a .tflite file or a SavedModel folder.")
    if path.suffix != ".tflite":
        raise ValueError(
            f"{str(path)!r} is neither a .tflite file nor a SavedModel folder. Export the model "
            "first, with kr.export.tflite or kr.export.serving."
        )
    return _describe_file(path)


def _describe_file(path: pathlib.Path) -> Description:
    interpreter = load(path)
    content = path.read_bytes()
    operations = _flatbuffer.operations(content)
    weights = [_weight(tensor) for tensor in _flatbuffer.parameters(operations)]
    size, gzip_size = sizes(path)
    return Description(
        kind="tflite",
        path=str(path),
        bytes=size,
        gzip_bytes=gzip_size,
        inputs=[_end(detail) for detail in interpreter.get_input_details()],
        outputs=[_end(detail) for detail in interpreter.get_output_details()],
        ops=dict(collections.Counter(op.kind for op in operations).most_common()),
        float_ops=list(_flatbuffer.float_ops(content)),
        parameters=sum(int(np.prod(weight["shape"])) for weight in weights),
        weights=weights,
        class_names=_labels(path),
    )


def _end(detail: dict) -> dict:
    scale, zero = detail["quantization"]
    quantized = scale > 0
    return {
        "name": detail["name"],
        "shape": [int(n) if n >= 0 else None for n in detail["shape_signature"]],
        "dtype": np.dtype(detail["dtype"]).name,
        "scale": float(scale) if quantized else None,
        "zero_point": int(zero) if quantized else None,
    }


def _weight(tensor: _flatbuffer.Tensor) -> dict:
    known = tensor.values is not None
    return {
        "name": tensor.name,
        "dtype": tensor.dtype.lower(),
        "shape": list(tensor.shape),
        "per_channel": tensor.scales > 1,
        "sparsity": float(np.mean(tensor.values == tensor.zero_point)) if known else None,
        "distinct": len(np.unique(tensor.values)) if known else None,
    }


def _labels(path: pathlib.Path) -> list[str] | None:
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if LABELS not in archive.namelist():
            return None
        return archive.read(LABELS).decode().splitlines()


def _describe_folder(path: pathlib.Path) -> Description:
    if (path / "saved_model.pb").exists():
        found = {None: path}
    else:
        found = {number: path / str(number) for number in versions(path)}
    if not found:
        raise ValueError(
            f"{str(path)!r} holds no saved_model.pb and no folder named by a version number. Write "
            "one with kr.export.serving."
        )
    described = {number: _saved_model(folder) for number, folder in found.items()}
    return Description(kind="savedmodel", path=str(path), versions=described)


def _saved_model(folder: pathlib.Path) -> dict:
    try:
        with quiet():
            signatures = tf.saved_model.load(str(folder)).signatures
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        raise ValueError(
            f"{str(folder)!r} is no SavedModel that can be loaded: {error}. Write it again with "
            "kr.export.serving."
        ) from error
    size, gzip_size = sizes(folder)
    described = {}
    for name, function in signatures.items():
        described[name] = {
            "inputs": _specs(function.structured_input_signature[1]),
            "outputs": _specs(function.structured_outputs),
        }
    return {"bytes": size, "gzip_bytes": gzip_size, "signatures": described}


def _specs(specs: dict) -> dict:
    return {
        name: {"shape": spec.shape.as_list(), "dtype": spec.dtype.name}
        for name, spec in sorted(specs.items())
    }


def _tflite_text(found: Description):
    yield f"{found['path']}: {found['bytes']:,} bytes, {found['gzip_bytes']:,} gzipped"
    for side in ("inputs", "outputs"):
        for end in found[side]:
            scale = (
                ""
                if end["scale"] is None
                else (f", scale {end['scale']:.6g}, zero point {end['zero_point']}")
            )
            yield f"  {side[:-1]:<7}{end['name']}  {_shape(end['shape'])} {end['dtype']}{scale}"
    if found["class_names"]:
        yield f"  classes {', '.join(found['class_names'])}"
    yield "  ops    " + ", ".join(f"{count} {kind}" for kind, count in found["ops"].items())
    yield f"  {found['parameters']:,} parameters"
    width = max((len(weight["name"][-40:]) for weight in found["weights"]), default=0)
    for weight in found["weights"]:
        numbers = (
            ""
            if weight["sparsity"] is None
            else (f"  {weight['sparsity']:6.1%} zero  {weight['distinct']:>6} distinct")
        )
        kind = f"{weight['dtype']} per channel" if weight["per_channel"] else weight["dtype"]
        name = weight["name"][-40:]
        yield f"    {name:<{width}}  {_shape(weight['shape']):<16} {kind:<16}{numbers}"


def _saved_text(found: Description):
    yield found["path"]
    for number, version in found["versions"].items():
        name = "SavedModel" if number is None else f"version {number}"
        yield f"  {name}: {version['bytes']:,} bytes, {version['gzip_bytes']:,} gzipped"
        for signature, ends in version["signatures"].items():
            yield f"    {signature}"
            for side in ("inputs", "outputs"):
                for end, spec in ends[side].items():
                    yield f"      {side[:-1]:<7}{end}  {_shape(spec['shape'])} {spec['dtype']}"


def _shape(shape) -> str:
    return "(" + ", ".join("?" if n is None else str(n) for n in shape) + ")"
