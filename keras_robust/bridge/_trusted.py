"""What an architecture in a file may name: layers and their parts, nothing that acts when built."""

import sys

# Where Keras keeps what a model is made of.
_PARTS = ("layers", "initializers", "regularizers", "constraints", "models", "quantizers", "random")
_POLICIES = ("dtype_policies", "mixed_precision")
# Bases of what may be made. All of Keras 3's operations are layers or pure functions.
_BASES = ("Layer", "Operation", "Initializer", "Regularizer", "Constraint", "DTypePolicy", "Policy")
_BASES += ("Quantizer", "QuantizationConfig", "SeedGenerator")
# Modules whose classes have no public name, by the Keras they are in.
_INNER = (
    ("keras.src.ops.", None),
    ("keras.src.applications.", None),
    ("keras.src.models.functional", "Functional"),
    ("tf_keras.src.engine.functional", "Functional"),
)
# They run code, or open files, that the config names.
_ACTING = ("Lambda", "TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper")
# And those of tf_keras that have no public name, which it finds by the class's alone.
_ACTING += ("TensorFlowOpLayer", "ClassMethod", "InstanceProperty", "InstanceMethod")
_ACTING += ("ResidualWrapper", "DropoutWrapper", "DeviceWrapper", "DenseFeatures")
_FILES = ("vocabulary", "idf_weights")
# What Keras makes itself of values. By any other such name it would import what is asked for.
_VALUES = ("__tensor__", "__numpy__", "__bytes__")
_VALUES_OF_KERAS_3 = (*_VALUES, "__keras_tensor__", "__ellipsis__", "__slice__")
# They make of a config what it says, or call what it names.
_NO_ACTIVATIONS = ("deserialize", "serialize", "get")
# How tf_keras writes `x + 1` and `tf.nn.relu(x)`: any function of TensorFlow, by its name.
_OPERATIONS = ("TFOpLambda", "SlicingOpLambda")
_OPERATIONS_MODULES = [f"{start}.src.layers.core.tf_op_layer" for start in ("keras", "tf_keras")]
_PURE = ("math.", "nn.", "image.", "linalg.", "signal.", "strings.", "__operators__.")
_PURE_OF_KERAS = "keras.activations."
_PURE_NAMES = (
    *("argsort", "boolean_mask", "broadcast_to", "cast", "clip_by_norm", "clip_by_value", "concat"),
    *("einsum", "ensure_shape", "expand_dims", "eye", "norm", "sequence_mask"),
    *("gather", "gather_nd", "identity", "meshgrid", "one_hot", "ones_like", "pad", "rank"),
    *("repeat", "reshape", "reverse", "roll", "searchsorted", "shape", "size", "slice", "sort"),
    *("space_to_batch", "split", "squeeze", "stack", "stop_gradient", "strided_slice"),
    *("tensordot", "tile", "transpose", "unstack", "where", "zeros_like"),
)
_DTYPES = (
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    *("bool", "bfloat16", "float16", "float32", "float64", "string"),
)
_MOST_LAYERS = 1 << 14
_CONSTANT = "_CONSTANT_VALUE"  # Its place is `[_CONSTANT, -1, value, arguments]`.


class Untrusted(ValueError):
    """An architecture that might act when it is built; says what of it."""


def check_trusted(description, package) -> None:
    """Raises unless building `description`, which is changed for it, only makes layers.

    Args:
        description: parsed JSON, as Keras serializes a model.
        package: the Keras that will build it, its custom objects in place.

    Raises:
        ValueError: what it names that is not allowed, or that is not imported yet.
    """
    for entry in entries(description):
        _check(entry, package)
    for entry in entries(description):
        config = entry.get("config")
        if isinstance(config, dict) and isinstance(config.get("layers"), list):
            config["layers"] = _Counted(config["layers"], _check_calls(config["layers"]))


class _Counted(list):
    """Descriptions of layers, which tf_keras goes through once more while any call waits."""

    def __init__(self, layers, calls: int):
        super().__init__(layers)
        self.left = calls + 100

    def __iter__(self):
        self.left -= 1
        if self.left < 0:
            raise Untrusted("it makes calls that wait for what never comes")
        return super().__iter__()


def entries(description):
    """What names a class, at any depth; an entry may be changed before what is in it follows."""
    pending = [description]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def forget_training(description) -> None:
    """Takes away how a model, and those inside it, were compiled."""
    for entry in entries(description):
        entry.pop("compile_config", None)


def _check(entry: dict, package) -> None:
    kind, config = entry["class_name"], entry.get("config")
    if not isinstance(kind, str):
        raise Untrusted(f"it names the class {kind!r}")
    config = config if isinstance(config, dict) else {"function": config}
    if kind in _OPERATIONS and entry.get("module") in _OPERATIONS_MODULES and _is_legacy(package):
        _check_operation(entry, str(config.get("function")))
    elif kind in _ACTING or kind in ("__lambda__", "__typespec__"):
        raise Untrusted(f"it has a {kind}, which may run code")
    elif any(isinstance(config.get(name), str) for name in _FILES):
        raise Untrusted(f"its {kind} reads a file of its own choice")
    elif kind in (_VALUES if _is_legacy(package) else _VALUES_OF_KERAS_3):
        if kind in ("__tensor__", "__numpy__") and config.get("dtype") not in _DTYPES:
            raise Untrusted(f"it has a constant of dtype {config.get('dtype')!r}")
    elif not (_is_registered(entry, package) or _is_part(entry, package)):
        raise ValueError(f"it names {kind!r} of {entry.get('module')!r}, which is not known")


def _is_legacy(package) -> bool:
    return not hasattr(package, "Operation")


def _is_registered(entry: dict, package) -> bool:
    """Whether imported code has registered the name for files: what that does is its own."""
    # As Keras looks for it: where a registered name is given, the other counts for nothing.
    name = entry.get("registered_name", entry["class_name"])
    if entry["class_name"] == "function":
        name = entry.get("config")
    found = package.saving.get_registered_object(name) if isinstance(name, str) else None
    if found is None or entry["class_name"] == "function":
        return found is not None
    # Some ways of tf_keras go by the class's name alone.
    return entry["class_name"] in (name, getattr(found, "__name__", None))


def _is_part(entry: dict, package) -> bool:
    """Whether Keras will find a part of its own, and not import another module for it."""
    kind, module = entry["class_name"], entry.get("module")
    function = kind == "function"
    name = entry.get("config") if function else kind
    if not isinstance(name, str) or entry.get("registered_name") not in (None, name):
        return False
    module = "" if module is None else str(module)
    if _is_legacy(package) and module.startswith("keras"):
        module = "tf_" + module  # So does tf_keras.
    if function:
        found = getattr(package.activations, name, None)
        own = callable(found) and name not in _NO_ACTIVATIONS
        places = ("builtins", f"{package.__name__}.activations", getattr(found, "__module__", ""))
        return own and module in places
    return _is_buildable(_class_of(name, module, package), package)


def _class_of(name: str, module: str, package):
    """The class of that name in `module`, which is public, or has been imported with Keras."""
    for part in (*_PARTS, *_POLICIES, None):
        family = package if part is None else getattr(package, part, None)
        found = getattr(family, name, None)
        public = package.__name__ + (f".{part}" if part else "")
        # Without a module Keras takes what it knows by that name.
        if found is not None and module in ("", public, getattr(found, "__module__", public)):
            return found
    for start, only in _INNER:
        if module.startswith(start) and only in (None, name):
            found = vars(sys.modules.get(module, package)).get(name)
            return found if getattr(found, "__module__", None) == module else None
    return None


def _is_buildable(found, package) -> bool:
    places = [package, *(getattr(package, part, None) for part in (*_PARTS, *_POLICIES))]
    bases = {getattr(place, name, None) for place in places for name in _BASES} - {None}
    return isinstance(found, type) and issubclass(found, tuple(bases))


def _check_operation(entry: dict, function: str) -> None:
    name = function.removeprefix(_PURE_OF_KERAS)
    of_keras = name != function and name not in _NO_ACTIVATIONS
    if not (of_keras or function.startswith(_PURE) or function in _PURE_NAMES):
        raise Untrusted(f"it calls the function {function!r} of TensorFlow")


def _check_calls(layers: list) -> int:
    """The number of calls; raises where one has constants alone, or waits for what never comes.

    The one would be computed at once, of whatever size; for the other tf_keras waits for ever.
    """
    layers = [layer for layer in layers if isinstance(layer, dict) and "name" in layer]
    names = {layer["name"] for layer in layers if isinstance(layer["name"], str)}
    if len(names) < len(layers) or _CONSTANT in names:
        raise Untrusted("its layers have no names of their own")
    if len(layers) > _MOST_LAYERS:
        raise Untrusted(f"it has {len(layers):,} layers, more than {_MOST_LAYERS:,}")
    starts = {layer["name"] for layer in layers if layer.get("class_name") == "InputLayer"}
    waiting = {}
    for layer in layers:
        name, nodes = layer["name"], layer.get("inbound_nodes") or []
        if not isinstance(nodes, list):
            raise Untrusted(f"it calls {name!r} by no list")
        for number, node in enumerate(nodes, _first_call(layer)):
            taken = set(_outputs(node, names))
            if not taken:
                raise Untrusted(f"it calls {name!r} on constants alone")
            if not _is_of_keras_3(node):  # Which says itself that it waits.
                waiting[name, number] = {output for output in taken if output[0] not in starts}
    _check_order(waiting)
    return len(waiting)


def _check_order(waiting: dict) -> None:
    """Raises where some calls, each with the outputs that it takes, can never be made."""
    takers = {}
    for call, taken in waiting.items():
        for output in taken:
            takers.setdefault(output, []).append(call)
    left = {call: len(taken) for call, taken in waiting.items()}
    ready = [call for call, count in left.items() if not count]
    while ready:
        call = ready.pop()
        del left[call]
        for taker in takers.get(call, ()):
            left[taker] -= 1
            if not left[taker]:
                ready.append(taker)
    if left:
        raise Untrusted(f"it calls {next(iter(left))[0]!r} on what never comes")


def _first_call(layer: dict) -> int:
    """The number of a layer's first call: tf_keras counts that of a model's own inputs too."""
    config = layer.get("config")
    inner = config.get("layers") if isinstance(config, dict) else None
    if not isinstance(inner, list):
        return 0
    first = inner[0] if inner else {"class_name": "InputLayer"}
    return int(isinstance(first, dict) and first.get("class_name") == "InputLayer")


def _is_of_keras_3(node) -> bool:
    return isinstance(node, dict) and "args" in node


def _outputs(node, names, of_keras_3: bool = False):
    """The outputs of layers that a call takes: `(name, number of its call)`."""
    of_keras_3 = of_keras_3 or _is_of_keras_3(node)
    if isinstance(node, dict) and "class_name" in node:
        # A constant may hold anything, which is not looked at.
        history = (node.get("config") or {}).get("keras_history")
        if of_keras_3 and node["class_name"] == "__keras_tensor__" and _is_place(history):
            yield history[0], history[1]
    elif isinstance(node, dict):
        for value in node.values():
            yield from _outputs(value, names, of_keras_3)
    elif isinstance(node, list) and _is_place(node) and not of_keras_3:
        # `[name, call, output, arguments]`, as tf_keras writes it.
        if node[0] in names:
            yield node[0], node[1]
        if node[0] in names or node[0] == _CONSTANT:  # Then what follows is the constant.
            yield from _outputs(node[3:], names)
    elif isinstance(node, list):
        for value in node:
            yield from _outputs(value, names, of_keras_3)


def _is_place(value) -> bool:
    right = isinstance(value, list) and len(value) in (3, 4)
    return right and [*map(type, value[:2])] == [str, int]
