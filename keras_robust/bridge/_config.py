"""One layer's config, said in the words of the other Keras."""

import inspect

import numpy as np

from keras_robust.bridge._kerases import Kerases
from keras_robust.layers import counterpart

# Keyword arguments that a layer takes beyond those that its __init__ names.
BASE = {"name", "dtype", "activity_regularizer"}
# Keras 3's "hard_sigmoid" is relu6(x + 3) / 6, that of tf_keras clip(0.2 x + 0.5, 0, 1).
DIFFERENT_ACTIVATIONS = {"hard_sigmoid"}
ACTIVATIONS = {"silu": "swish"}  # To tf_keras, which reads no "silu"; Keras 3 reads both.
RENAMED = {"LeakyReLU": {"alpha": "negative_slope"}}  # tf_keras: Keras 3.
# What a base class reports although the layer never uses it.
UNUSED = {
    "SeparableConv1D": {"groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"},
    "SeparableConv2D": {"groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"},
    "SpatialDropout1D": {"noise_shape"},
    "SpatialDropout2D": {"noise_shape"},
    "SpatialDropout3D": {"noise_shape"},
    "BatchNormalization": {"renorm_momentum"},
}
# What a class takes among its keywords, without naming it, or only tf_keras reports.
UNNAMED = {"LSTM": {"zero_output_for_mask"}, "GRU": {"zero_output_for_mask"}}
UNUSED["MultiHeadAttention"] = {"query_shape", "key_shape", "value_shape"}
# How something is computed or drawn, not what.
IMMATERIAL = {"implementation", "rng_type"}
NO_COUNTERPART = {
    "Lambda": "its function is bytecode that only one Keras can run; make it a layer of its own",
    "TFOpLambda": "it is a bare TensorFlow operation; write it as a layer, such as "
    "keras.layers.Add, Rescaling or Reshape",
    "SlicingOpLambda": "it is a bare slice; write it as a layer, such as Cropping2D",
    "TFSMLayer": "it wraps a SavedModel; load that again in the other Keras",
}


def refuse(layer, reason: str) -> ValueError:
    """The error for a layer that cannot be carried over."""
    return ValueError(f"Layer {layer.name!r} ({type(layer).__name__}) cannot be rebuilt: {reason}.")


def target_class(layer, kerases: Kerases):
    """The class of the other Keras that `layer` becomes.

    A built-in one by its name; any other by the name that it is registered under in both
    (`register_keras_serializable`).
    """
    cls = type(layer)
    if cls.__name__ in NO_COUNTERPART:
        raise refuse(layer, NO_COUNTERPART[cls.__name__])
    if getattr(kerases.source.layers, cls.__name__, None) is cls:
        found = getattr(kerases.target.layers, cls.__name__, None)
        if found is None:
            raise refuse(
                layer,
                f"{kerases.target_name} {kerases.target.__version__} has no layer of that name; "
                "replace it by layers that both have",
            )
        return found
    own = counterpart(cls, kerases.target)
    if own is not None:
        return own
    name = kerases.source.saving.get_registered_name(cls)
    found = kerases.target.saving.get_registered_object(name)
    if found is None or found is cls:
        raise refuse(
            layer,
            f"no class is registered as {name!r} in {kerases.target_name}; define it there too and "
            "register it with keras.saving.register_keras_serializable under the same package",
        )
    return found


def make(target: type, config: dict):
    """A `target` layer from a translated config."""
    if target.__name__ == "MultiHeadAttention":
        return target(**config)  # Its `from_config` asks for shapes that only tf_keras writes.
    return target.from_config(config)


def translate(layer, kerases: Kerases) -> dict:
    """The config of `layer` for the class of the other Keras."""
    target = target_class(layer, kerases)
    config = _values(layer, layer.get_config(), kerases)
    config["dtype"] = _policy(layer, kerases)
    config["name"] = layer.name.replace("/", "_")  # Keras 3 allows no slash.
    kind = type(layer).__name__
    for old, new in RENAMED.get(kind, {}).items():
        if kerases.to_legacy:
            old, new = new, old
        if old in config:
            config[new] = config.pop(old)
    if kind == "BatchNormalization" and isinstance(config["axis"], list | tuple):
        (config["axis"],) = config["axis"]
    config.pop("trainable", None)  # Set on the twin: not every constructor takes it.
    config.pop("batch_input_shape", None)  # The rebuilt graph has its own inputs.
    if target.__module__.partition(".")[0] != kerases.target.__name__:
        return config  # A layer of someone's own: it knows its arguments.
    for key in UNUSED.get(kind, set()) | (IMMATERIAL - _parameters(target)):
        config.pop(key, None)
    return _known(layer, config, type(layer), target, kerases)


def _known(layer, config: dict, source: type, target: type, kerases: Kerases) -> dict:
    """`config` without what only the source class knows, which must be at its default."""
    known = _parameters(target) | UNNAMED.get(target.__name__, set())
    # A layer without the option puts channels last.
    defaults = _defaults(source) | {"data_format": "channels_last"}
    for key in sorted(set(config) - known):
        value = config[key]
        if value not in (None, False) and value != defaults.get(key):
            raise refuse(
                layer,
                f"its {key}={value!r} is unknown to {kerases.target_name}; leave it at its default",
            )
    return {key: value for key, value in config.items() if key in known}


def _policy(layer, kerases: Kerases) -> str:
    policy = layer.dtype_policy
    name = policy.name
    if "_from_" in name or "float8" in name:
        raise refuse(layer, f"its dtype policy {name!r} is Keras 3's own quantization")
    return name


def _parameters(cls) -> set[str]:
    """The names that the constructor takes, its bases' too where it hands keywords on."""
    names = set()
    for base in cls.__mro__[:-1]:
        if base.__name__ in ("Layer", "Module", "Operation"):
            return names | BASE
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        names.update(
            p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        )
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            break
    return names - {"self"}


def _defaults(cls) -> dict:
    found = {}
    for base in reversed(cls.__mro__[:-1]):
        for parameter in inspect.signature(base.__init__).parameters.values():
            if parameter.default is not parameter.empty:
                found[parameter.name] = parameter.default
    return found


def _values(layer, value, kerases: Kerases, key: str = ""):
    """Plain, translated values all the way down."""
    if isinstance(value, kerases.source.layers.Layer):
        raise refuse(layer, f"its {key!r} is a layer; build it from plain layers instead")
    if isinstance(value, dict) and "class_name" in value and "config" in value:
        return _object(layer, value, kerases, key)
    if isinstance(value, dict):
        return {k: _values(layer, v, kerases, k) for k, v in value.items()}
    if isinstance(value, list):  # Also the tracking wrappers around lists.
        return [_values(layer, v, kerases, key) for v in value]
    if isinstance(value, tuple):
        return tuple(_values(layer, v, kerases, key) for v in value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if key.endswith("activation") and isinstance(value, str):
        return _activation(layer, value, kerases)
    if callable(value):
        raise refuse(layer, f"its {key}={value!r} is a bare function; register it in both Kerases")
    return value


def _activation(layer, name: str, kerases: Kerases) -> str:
    if name in DIFFERENT_ACTIVATIONS:
        raise refuse(layer, f"its activation {name!r} is another function in {kerases.target_name}")
    if kerases.to_legacy:
        name = ACTIVATIONS.get(name, name)
    try:
        kerases.target.activations.get(name)
    except (ValueError, TypeError) as error:
        raise refuse(layer, f"{kerases.target_name} has no activation {name!r}") from error
    return name


def _object(layer, value: dict, kerases: Kerases, key: str):
    """A serialized object: an initializer, a policy, an activation, or another layer."""
    name, package = value["class_name"], value.get("registered_name")
    if name in ("DTypePolicy", "Policy"):
        return value["config"]["name"]
    if getattr(kerases.source.layers, name, None) is not None and "layers" in str(
        value.get("module")
    ):
        try:
            inner = kerases.source.saving.deserialize_keras_object(value)
            twin = make(target_class(inner, kerases), translate(inner, kerases))
            if not inner.trainable:  # True would thaw what is frozen further inside.
                twin.trainable = False
        except (TypeError, ValueError) as error:
            raise refuse(layer, f"its {key!r} cannot be: {error}") from error
        return kerases.target.saving.serialize_keras_object(twin)
    if package and ">" in package and kerases.target.saving.get_registered_object(package) is None:
        raise refuse(layer, f"its {key} is {package!r}, which {kerases.target_name} does not know")
    # Without the module, each Keras looks the name up among its own.
    config = _values(layer, value["config"], kerases, key)
    for family in ("initializers", "regularizers", "constraints"):
        source = getattr(getattr(kerases.source, family), name, None)
        target = getattr(getattr(kerases.target, family), name, None)
        if source is not None and target is not None and not package:
            config = _known(layer, config, source, target, kerases)
    return {"class_name": package or name, "config": config}
