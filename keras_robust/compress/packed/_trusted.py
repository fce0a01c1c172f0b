"""What an architecture in a file may name: layers and their parts, nothing that acts when built."""

from keras_robust.compress.packed._bytes import Damaged

# Where Keras keeps what a model is made of.
_PARTS = ("layers", "initializers", "regularizers", "constraints", "activations")
_MODELS = ("Functional", "Sequential", "Model")
_POLICIES = ("DTypePolicy", "DTypePolicyMap", "Policy")
# They run code, or open files, that the config names.
_ACTING = ("Lambda", "TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper")
_FILES = ("vocabulary", "idf_weights")
# How tf_keras writes `x + 1` and `tf.nn.relu(x)`: any function of TensorFlow, by its name.
_OPERATIONS = ("TFOpLambda", "SlicingOpLambda")
_PURE = ("math.", "nn.", "__operators__.")
_PURE_NAMES = (
    *("cast", "clip_by_value", "concat", "expand_dims", "gather", "identity", "reshape", "reverse"),
    *("roll", "slice", "split", "squeeze", "stack", "stop_gradient", "strided_slice", "transpose"),
    *("unstack", "where", "linalg.matmul", "linalg.l2_normalize", "linalg.normalize", "pad"),
)


def check_trusted(description, package) -> None:
    """Raises unless building `description` only makes layers.

    Args:
        description: parsed JSON, as Keras serializes a model.
        package: the Keras that will build it, its custom objects in place.

    Raises:
        ValueError: what it names that is not allowed, or that is not imported yet.
    """
    for entry in entries(description):
        _check(entry, package)


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


def _check(entry: dict, package) -> None:
    kind, config = entry["class_name"], entry.get("config")
    if not isinstance(kind, str):
        raise Damaged(f"it names the class {kind!r}")
    config = config if isinstance(config, dict) else {"function": config}
    if kind in _OPERATIONS:
        _check_operation(entry, str(config.get("function")))
    elif kind in _ACTING or kind in ("__lambda__", "__typespec__"):
        raise Damaged(f"it has a {kind}, which may run code")
    elif any(isinstance(config.get(name), str) for name in _FILES):
        raise Damaged(f"its {kind} reads a file of its own choice")
    elif not (kind.startswith("__") or _is_registered(entry, package) or _is_part(entry, package)):
        raise ValueError(f"it names {kind!r} of {entry.get('module')!r}, which is not known")


def _check_operation(entry: dict, function: str) -> None:
    if not (function.startswith(_PURE) or function in _PURE_NAMES):
        raise Damaged(f"it calls the function {function!r} of TensorFlow")
    # Of constants alone it would be computed at once, of whatever size.
    if not all(_takes_tensor(node) for node in entry.get("inbound_nodes") or [None]):
        raise Damaged(f"it calls {function!r} on constants alone")


def _takes_tensor(node) -> bool:
    """Whether a call of tf_keras has an output of a layer, `[name, node, tensor, ...]`, in it."""
    if isinstance(node, dict):
        return any(_takes_tensor(part) for part in node.values())
    if not isinstance(node, list):
        return False
    if len(node) >= 3 and isinstance(node[0], str) and node[0] != "_CONSTANT_VALUE":
        return all(isinstance(index, int) for index in node[1:3])
    return any(_takes_tensor(part) for part in node)


def _is_registered(entry: dict, package) -> bool:
    """Whether imported code has registered the name for files: what that does is its own."""
    name = entry.get("registered_name") or entry["class_name"]
    if entry["class_name"] == "function":
        name = entry.get("config")
    if not isinstance(name, str):
        return False
    return package.saving.get_registered_object(name) is not None


def _is_part(entry: dict, package) -> bool:
    kind, module = entry["class_name"], entry.get("module")
    ours = module is None or str(module).partition(".")[0] in ("keras", "tf_keras")
    if kind == "function":
        known = hasattr(package.activations, str(entry.get("config")))
        return known and (ours or module == "builtins")
    if not ours:
        return False
    if str(module).startswith("keras.src.ops."):
        return True  # Keras 3 builds nothing of them but its own operations.
    found = any(hasattr(getattr(package, part), kind) for part in _PARTS)
    return found or kind in _MODELS or kind in _POLICIES
