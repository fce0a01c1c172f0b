"""A fake-quantized model with layers left in float, as a file of which these layers are float.

Where both neighbours of such a layer compute in int8, TensorFlow's converter rounds its weights
all the same. Converted without optimization, the layer is float in the file, and the others are
float with rounded weights. So the operations of the float layers are taken from there.
"""

import copy

import numpy as np

from keras_robust.export import _flatbuffer

# Of each kind of operation that holds a kernel: which inputs are the numbers it works on, the
# kernel and the bias.
_PLACES = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}


def left_in_float(model) -> tuple[int, int]:
    """How many layers of a fake-quantized model have kernels that are not rounded.

    Returns:
        Those that are annotated so, as by `kr.compress.Quantize(float_layers=...)`, and all.
    """
    meant = found = 0
    for layer in getattr(model, "layers", []):
        inner = layer.layer if hasattr(layer, "_weight_vars") else layer
        names = ("kernel", "depthwise_kernel")
        if getattr(layer, "_weight_vars", ()) or not any(hasattr(inner, name) for name in names):
            continue
        found += 1
        meant += inner is not layer
    return meant, found


def with_float_layers(quantized: bytes, plain: bytes) -> bytes:
    """The file `quantized`, its layers float whose kernels are constants in float in `plain`.

    Args:
        quantized: of a fake-quantized model, converted with optimization.
        plain: of the same model, converted without.

    Raises:
        ValueError: the two hold other convolutions and dense layers.
    """
    from tensorflow.lite.tools import flatbuffer_utils as tools

    model = tools.read_model_from_bytearray(bytearray(quantized))
    _Swap(model, tools.read_model_from_bytearray(bytearray(plain))).run()
    return _packed(model, tools.flatbuffers.Builder)


def _packed(model, builder_class) -> bytes:
    class Aligned(builder_class):
        def StartVector(self, size, count, alignment):
            # As the schema has it, and Python's writer does not: kernels read whole vectors.
            return super().StartVector(size, count, 16 if size == 1 else alignment)

    builder = Aligned(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


class _Swap:
    """Puts operations of `source` in the place of those of `target`, models as objects."""

    def __init__(self, target, source):
        self.schema = _flatbuffer.schema_module()
        self.kinds = {getattr(self.schema.BuiltinOperator, kind): kind for kind in _PLACES}
        self.target, self.source = target, source
        self.graph, self.float_graph = target.subgraphs[0], source.subgraphs[0]
        self.in_float = {}

    def run(self):
        ours, theirs = self._kernels(self.target), self._kernels(self.source)
        if [kind for kind, _ in ours] != [kind for kind, _ in theirs]:
            raise ValueError("The two files hold other convolutions and dense layers.")
        swaps = {}
        for (kind, op), (_, other) in zip(ours, theirs, strict=True):
            kernel = self.float_graph.tensors[other.inputs[_PLACES[kind][1]]]
            constant = self._data(kernel) is not None and self._float(kernel)
            if constant and not self._float(self.graph.tensors[op.outputs[0]]):
                swaps[id(op)] = kind, other
        operators = []
        for op in self.graph.operators:
            operators += self._swapped(op, *swaps[id(op)]) if id(op) in swaps else [op]
        self.graph.operators = operators
        self._drop_unused()

    def _kernels(self, model) -> list:
        found = []
        for op in model.subgraphs[0].operators:
            code = model.operatorCodes[op.opcodeIndex]
            kind = self.kinds.get(max(code.builtinCode, code.deprecatedBuiltinCode))
            found += [] if kind is None else [(kind, op)]
        return found

    def _swapped(self, op, kind, other) -> list:
        """What stands for `op`: its input as float, `other` from the source, its output as int8."""
        numbers, *constants = _PLACES[kind]
        enter = op.inputs[numbers]
        before = []
        if not self._float(self.graph.tensors[enter]) and enter not in self.in_float:
            self.in_float[enter] = self._float_twin(enter)
            before = [self._cast("DEQUANTIZE", enter, self.in_float[enter])]
        leave = op.outputs[0]
        result = self._float_twin(leave)
        inputs = list(op.inputs[: len(other.inputs)])
        inputs += [-1] * (len(other.inputs) - len(inputs))
        inputs[numbers] = self.in_float.get(enter, enter)
        for place in constants:
            if place < len(other.inputs) and other.inputs[place] >= 0:
                inputs[place] = self._constant(self.float_graph.tensors[other.inputs[place]])
        new = copy.copy(other)
        new.opcodeIndex = self._code(self.source.operatorCodes[other.opcodeIndex])
        new.inputs, new.outputs = inputs, [result]
        return [*before, new, self._cast("QUANTIZE", result, leave)]

    def _cast(self, kind, source, target):
        builtin = getattr(self.schema.BuiltinOperator, kind)
        code = self.schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        # To and from int8: https://www.tensorflow.org/lite/guide/ops_version
        code.version = 2 if kind == "DEQUANTIZE" else 1
        op = self.schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = self._code(code), [source], [target]
        return op

    def _code(self, wanted) -> int:
        codes = self.target.operatorCodes
        for place, code in enumerate(codes):
            if (code.builtinCode, code.version) == (wanted.builtinCode, wanted.version):
                return place
        codes.append(copy.copy(wanted))
        return len(codes) - 1

    def _float_twin(self, index: int) -> int:
        """A new float tensor of the shape of the tensor there."""
        twin = copy.copy(self.graph.tensors[index])
        twin.type, twin.quantization = self.schema.TensorType.FLOAT32, None
        twin.buffer, twin.name = 0, twin.name + b"/float"
        return self._added(twin)

    def _constant(self, tensor) -> int:
        new, buffer = copy.copy(tensor), self.schema.BufferT()
        buffer.data = np.array(self._data(tensor))
        self.target.buffers.append(buffer)
        new.buffer = len(self.target.buffers) - 1
        return self._added(new)

    def _added(self, tensor) -> int:
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _float(self, tensor) -> bool:
        return tensor.type == self.schema.TensorType.FLOAT32

    def _data(self, tensor):
        """The bytes of a constant of the source, None for what is computed."""
        data = self.source.buffers[tensor.buffer].data
        return data if data is not None and len(data) else None

    def _drop_unused(self):
        """Leaves out the rounded kernels that no operation reads any more."""
        graph = self.graph
        used = {*graph.inputs, *graph.outputs}
        for op in graph.operators:
            used.update(int(i) for i in (*op.inputs, *op.outputs) if i >= 0)
        kept = sorted(used)
        place = {old: new for new, old in enumerate(kept)} | {-1: -1}
        graph.tensors = [graph.tensors[i] for i in kept]
        graph.inputs, graph.outputs = ([place[i] for i in s] for s in (graph.inputs, graph.outputs))
        for op in graph.operators:
            op.inputs = [place[int(i)] for i in op.inputs]
            op.outputs = [place[int(i)] for i in op.outputs]
        for signature in self.target.signatureDefs or ():
            for tensor in (*signature.inputs, *signature.outputs):
                tensor.tensorIndex = place[tensor.tensorIndex]
        held = {tensor.buffer for graph in self.target.subgraphs for tensor in graph.tensors}
        held.update(entry.buffer for entry in self.target.metadata or ())
        for index, buffer in enumerate(self.target.buffers):
            if index not in held:
                buffer.data = None
