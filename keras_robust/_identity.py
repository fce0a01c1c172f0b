"""Values in words and hashes that are the same in every process, and differ where they do."""

import collections.abc
import dataclasses
import functools
import hashlib
import inspect
import re
import types

import numpy as np
import tensorflow as tf

from keras_robust._keras import is_model

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def describe(value, deep=True) -> str:
    """`repr`, but the same in every process, and whole for arrays, models and functions.

    Of other objects their public attributes count, of functions their code and what it holds;
    not `deep` only that there are such.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        inside = ", ".join(f"{name}={describe(part, deep)}" for name, part in fields)
        return f"{type(value).__name__}({inside})"
    if isinstance(value, (np.ndarray, tf.Tensor, tf.Variable)):
        return f"array {array_hash(np.asarray(value))}"
    if is_model(value):
        return f"model {weights_hash(value)}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(describe(part, deep) for part in value)}]"
    if isinstance(value, collections.abc.Mapping):
        return f"{{{', '.join(f'{k!r}: {describe(v, deep)}' for k, v in value.items())}}}"
    if hasattr(value, "get_config") and not isinstance(value, type):
        # Losses and schedules; Keras 3 numbers their names.
        config = {name: part for name, part in value.get_config().items() if name != "name"}
        return f"{type(value).__name__}({describe(config, deep)})"
    if isinstance(value, functools.partial):
        return f"partial({describe([value.func, value.args, value.keywords], deep)})"
    if deep and isinstance(value, types.MethodType):
        owner = value.__self__
        # One of its fields may be the method itself.
        told = describe(owner, not dataclasses.is_dataclass(owner))
        return f"method({describe(value.__func__)}, {told})"
    if deep and isinstance(value, types.FunctionType):
        inside = [*map(_content, value.__closure__ or ()), value.__defaults__, value.__kwdefaults__]
        own = f"{_code_hash(value.__code__)}, {describe(inside, False)}"
        return f"{value.__qualname__}({own}{_wrapped(value)})"
    if deep and (wrapped := _wrapped(value)):
        return f"{type(value).__qualname__}({wrapped})"
    if deep and type(value).__repr__ is object.__repr__ and hasattr(value, "__dict__"):
        inside = {name: part for name, part in vars(value).items() if not name.startswith("_")}
        return f"{type(value).__qualname__}({describe(inside, False)})"
    return _ADDRESS.sub("", repr(value))


def _wrapped(value) -> str:
    """The function that a decorator or tf.function was given, described; "" where there is none."""
    if isinstance(value, type):
        return ""
    # Looked up without calling: some objects answer to any name.
    names = ("python_function", "__wrapped__")
    name = next((n for n in names if inspect.getattr_static(value, n, None) is not None), None)
    inner = None if name is None else getattr(value, name)
    return f", {describe(inner)}" if callable(inner) and inner is not value else ""


def _content(cell):
    """What a closure holds; None where that is deleted or not there yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _code_hash(code) -> str:
    constants = [*map(_constant, code.co_consts)]
    return hash_of(code.co_code, repr((code.co_names, constants)).encode())


def _constant(value) -> str:
    if isinstance(value, types.CodeType):
        return _code_hash(value)
    # The order of a set of strings differs from process to process.
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)


def array_hash(array) -> str:
    """Of values, shape and dtype."""
    array = np.ascontiguousarray(array)
    return hash_of(repr((array.shape, array.dtype.str)).encode(), array.tobytes())


def weights_hash(model) -> str:
    variables = getattr(model, "variables", None) or ()
    return hash_of(*(array_hash(np.asarray(v)).encode() for v in variables))


def hash_of(*parts: bytes) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little") + part)
    return total.hexdigest()[:16]
