"""What is inside a `.tflite` file: operations and tensors, read from its flatbuffer."""

import dataclasses

import numpy as np

WEIGHT_TYPES = ("FLOAT16", "FLOAT32", "FLOAT64", "INT4", "INT8", "UINT8", "INT16")
STORED = {"BOOL", "INT8", "UINT8", "INT16", "INT32", "INT64", "FLOAT16", "FLOAT32", "FLOAT64"}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor; `values` are None unless it is a constant stored plainly."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    constant: bool
    scales: int
    zero_point: int
    values: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation, with the tensors that it reads and writes."""

    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def operations(content: bytes) -> list[Operation]:
    """The operations of all subgraphs, in order; the content must be a valid file."""
    schema = schema_module()
    kinds = _names(schema.BuiltinOperator)
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    found = []
    for graph in model.subgraphs:
        tensors = [_tensor(t, model.buffers, content, schema) for t in graph.tensors]
        for op in graph.operators or []:
            code = model.operatorCodes[op.opcodeIndex]
            kind = kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
            if kind == "CUSTOM":
                kind = f"CUSTOM:{code.customCode.decode()}"
            found.append(Operation(kind, _pick(tensors, op.inputs), _pick(tensors, op.outputs)))
    return found


def float_ops(content: bytes) -> tuple[str, ...]:
    """Operations that compute in float, as "KIND: name of the output"."""
    return tuple(
        f"{op.kind}: {op.outputs[0].name}"
        for op in operations(content)
        if op.kind not in ("QUANTIZE", "DEQUANTIZE")
        and any(t.dtype == "FLOAT32" for t in (*op.inputs, *op.outputs))
    )


def parameters(found: list[Operation]) -> list[Tensor]:
    """The constants that are weights or biases, each once; shapes and axes are not."""
    seen = {}
    for op in found:
        for tensor in op.inputs:
            # Quantized biases are int32 with a scale; plain int32 constants are shapes.
            kind = tensor.dtype in WEIGHT_TYPES or tensor.scales
            if tensor.constant and tensor.shape and kind:
                seen[id(tensor)] = tensor
    return list(seen.values())


def schema_module():
    """The classes of the file format."""
    try:
        from tensorflow.lite.python import schema_py_generated as schema
    except ImportError:  # A TensorFlow without its lite part: see `interpreter_class`.
        from ai_edge_litert import schema_py_generated as schema
    return schema


def _names(enumeration) -> dict:
    return {v: k for k, v in vars(enumeration).items() if not k.startswith("_")}


def _pick(tensors: list[Tensor], indices) -> tuple[Tensor, ...]:
    return tuple(tensors[i] for i in (() if indices is None else indices) if i >= 0)


def _tensor(tensor, buffers, content: bytes, schema) -> Tensor:
    dtype = _names(schema.TensorType)[tensor.type]
    shape = () if tensor.shape is None else tuple(map(int, tensor.shape))
    raw = _raw(buffers[tensor.buffer], content)
    values = None
    if raw is not None and dtype in STORED and tensor.sparsity is None:
        values = np.frombuffer(raw, np.dtype(dtype.lower())).reshape(shape)
    quantization = tensor.quantization
    scales = zero_points = ()
    if quantization is not None and quantization.scale is not None:
        scales, zero_points = quantization.scale, quantization.zeroPoint
    return Tensor(
        name=(tensor.name or b"").decode(errors="replace"),
        dtype=dtype,
        shape=shape,
        constant=raw is not None,
        scales=len(scales),
        zero_point=int(zero_points[0]) if len(zero_points) else 0,
        values=values,
    )


def _raw(buffer, content: bytes):
    if buffer.data is not None and len(buffer.data):
        return np.asarray(buffer.data, np.uint8).tobytes()
    if buffer.size:  # Files over 2 GB keep their weights behind the flatbuffer.
        return content[buffer.offset : buffer.offset + buffer.size]
    return None
