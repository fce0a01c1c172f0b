"""A functional or sequential model of one Keras, rebuilt in the other, node by node."""

import math

import numpy as np
import tensorflow as tf

from keras_robust._random_state import keep_random_state
from keras_robust.bridge._config import make, refuse, target_class, translate
from keras_robust.bridge._kerases import Kerases, both
from keras_robust.bridge._weights import carry_weights
from keras_robust.layers import introduce

_MOST_INPUTS = 1 << 26  # Numbers to try a rebuilt model on.
# Of the largest output; a step of bfloat16 is a 128th to a 256th.
_ROUNDING, _BFLOAT16 = 1e-3, 3e-2


def from_keras3(model):
    """The same model for tf_keras: same layers, names and weights, same outputs.

    Functional and sequential models, nested, shared, with several inputs and outputs; not
    what they were compiled with. `model` is left as it is. Both packages must be installed;
    which of them the process runs does not matter.

    Training goes on alike but for rounding and one thing: tf_keras corrects the moving
    variance of a batch normalization by n / (n - 1), Keras 3 does not.

    Keras 3 gives a model's own `training` argument to every layer in it, whatever a layer
    was called with when the graph was made; so does the rebuilt model.

    Args:
        model: a built Keras 3 model, `Sequential` or functional.

    Returns:
        A `tf_keras.Model`.

    Raises:
        TypeError: not a Keras 3 model.
        ValueError: a layer, an option or a bare operation that tf_keras lacks, by name.

    >>> import keras, tf_keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> isinstance(from_keras3(model), tf_keras.Model)
    True
    """
    return _convert(model, both(to_legacy=True))


def to_keras3(model):
    """The same model for Keras 3: same layers, names and weights, same outputs.

    Functional and sequential models, nested, shared, with several inputs and outputs; not
    what they were compiled with. `model` is left as it is. A slash in a name becomes an
    underscore, since Keras 3 allows none. A layer that was called with `training=False` when
    the graph was made follows the model's own `training` in Keras 3: set its `trainable` to
    False as well where batch statistics must stay.

    Args:
        model: a built `tf_keras` model, `Sequential` or functional.

    Returns:
        A `keras.Model` of Keras 3.

    Raises:
        TypeError: not a tf_keras model.
        ValueError: a layer, an option or a bare operation that Keras 3 lacks, by name.

    >>> import keras, tf_keras
    >>> model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(3)])
    >>> isinstance(to_keras3(model), keras.Model)
    True
    """
    return _convert(model, both(to_legacy=False))


def _convert(model, kerases: Kerases):
    if not isinstance(model, kerases.source.Model):
        raise TypeError(
            f"`model` must be a {kerases.source_name} model, got {type(model).__module__}."
            f"{type(model).__name__}."
        )
    with keep_random_state():
        rebuilt = _Rebuild(kerases).model(model)
        _check_outputs(model, rebuilt, kerases)
    return rebuilt


class _Rebuild:
    """One conversion; remembers each layer, so that a shared one stays shared."""

    def __init__(self, kerases: Kerases):
        introduce(kerases.target)
        self.kerases = kerases
        self.done = {}

    def model(self, model):
        """The rebuilt model or nested model."""
        kind = type(model).__name__
        if kind not in ("Functional", "Sequential") or not _is_own(model, self.kerases.source):
            raise ValueError(
                f"Model {model.name!r} ({kind}) cannot be rebuilt: being subclassed, it has no "
                "graph of layers. Build it with the functional API, or save its weights and load "
                f"them into a model of {self.kerases.target_name}."
            )
        if not model.built or not model.inputs:
            raise ValueError(
                f"Model {model.name!r} has no weights yet. Build it first, for instance with an "
                "Input as its first layer."
            )
        rebuilt = self._sequential(model) if kind == "Sequential" else self._functional(model)
        if not model.trainable:
            rebuilt.trainable = False
        return rebuilt

    def _input(self, tensor):
        layer = tensor._keras_history[0]
        return self.kerases.target.Input(
            batch_shape=tuple(tensor.shape),
            dtype=tf.as_dtype(tensor.dtype).name,
            name=layer.name.replace("/", "_"),
        )

    def _sequential(self, model):
        layers = [self.layer(layer) for layer in model.layers]
        inputs = self._input(model.inputs[0])
        rebuilt = self.kerases.target.Sequential([inputs, *layers], name=_name(model))
        self._carry(model.layers)
        return rebuilt

    def _functional(self, model):
        tensors = {_key(tensor): self._input(tensor) for tensor in model.inputs}
        layers = []
        for layer, args, kwargs, outputs in _steps(model, self.kerases):
            rebuilt = self.layer(layer)
            args = _replaced(layer, args, tensors)
            kwargs = self._kwargs(layer, _replaced(layer, kwargs, tensors))
            try:
                results = tf.nest.flatten(rebuilt(*args, **kwargs))
            except (TypeError, ValueError, AttributeError) as error:
                raise refuse(
                    layer, f"{self.kerases.target_name} cannot call it alike: {error}"
                ) from error
            keys = [_key(tensor) for tensor in tf.nest.flatten(outputs)]
            tensors.update(zip(keys, results, strict=True))
            layers.append(layer)
        given, returned = _ends(model, self.kerases)
        rebuilt = self.kerases.target.Model(
            tf.nest.map_structure(lambda t: tensors[_key(t)], given),
            tf.nest.map_structure(lambda t: tensors[_key(t)], returned),
            name=_name(model),
        )
        self._carry(layers)
        return rebuilt

    def _kwargs(self, layer, kwargs: dict) -> dict:
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        if self.kerases.to_legacy:
            # Keras 3 notes a layer's default too, and overrides all of them on every call.
            kwargs.pop("training", None)
        elif kwargs.get("training"):
            raise refuse(
                layer, "it was called with training=True, which Keras 3 overrides on every call"
            )
        return kwargs

    def layer(self, layer):
        """The rebuilt layer, one and the same for one layer."""
        if id(layer) not in self.done:
            self.done[id(layer)] = self._layer(layer)
        return self.done[id(layer)]

    def _layer(self, layer):
        if isinstance(layer, self.kerases.source.Model):
            return self.model(layer)
        if not isinstance(layer, self.kerases.source.layers.Layer):
            raise refuse(
                layer,
                "it is a bare operation; write it as a layer, such as keras.layers.Add, Rescaling "
                "or Reshape",
            )
        config = translate(layer, self.kerases)
        try:
            twin = make(target_class(layer, self.kerases), config)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise refuse(
                layer, f"{self.kerases.target_name} does not take its config: {error}"
            ) from error
        if not layer.trainable:  # True would thaw what is frozen inside of a wrapper.
            twin.trainable = False
        return twin

    def _carry(self, layers) -> None:
        for layer in layers:
            # A nested model has carried its own.
            if not isinstance(layer, self.kerases.source.Model):
                carry_weights(layer, self.layer(layer))


def _is_own(model, package) -> bool:
    return type(model).__module__.partition(".")[0] == package.__name__


def _name(model) -> str:
    return model.name.replace("/", "_")


def _key(tensor) -> tuple:
    layer, node, index = tensor._keras_history[:3]
    return id(layer), node, index


def _steps(model, kerases: Kerases):
    """The calls that make up a functional model: layer, arguments, outputs, in order."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            if kerases.to_legacy:
                arguments = node.arguments
                yield node.operation, arguments.args, arguments.kwargs, node.output_tensors
            else:
                yield node.layer, node.call_args, node.call_kwargs, node.outputs


def _ends(model, kerases: Kerases):
    """Inputs and outputs, in the structure that the model takes and returns."""
    if kerases.to_legacy:
        return model._inputs_struct, model._outputs_struct
    return model._nested_inputs, model._nested_outputs


def _replaced(layer, value, tensors: dict):
    def replace(leaf):
        if getattr(leaf, "_keras_history", None) is not None:
            return tensors[_key(leaf)]
        if isinstance(leaf, tf.Variable) or hasattr(leaf, "assign"):
            raise refuse(layer, "it was called on a bare variable; make that a weight of a layer")
        return leaf

    return tf.nest.map_structure(replace, value)


def _check_outputs(model, rebuilt, kerases: Kerases) -> None:
    """Both models on the same random numbers: the last word on what was overlooked above.

    Skipped where the inputs have open lengths, which are not ours to guess, or would fill the
    memory, as a file may ask for.
    """
    shapes = [(tensor.shape[0] or 1, *tensor.shape[1:]) for tensor in model.inputs]
    if any(None in shape for shape in shapes) or sum(map(math.prod, shapes)) > _MOST_INPUTS:
        return
    generator = np.random.default_rng(0)

    def numbers(tensor):
        dtype, shape = tf.as_dtype(tensor.dtype), (tensor.shape[0] or 1, *tensor.shape[1:])
        if not dtype.is_floating:
            return tf.zeros(shape, dtype)
        return tf.cast(generator.random(shape, dtype=np.float32), dtype)

    if type(model).__name__ == "Sequential":
        given = numbers(model.inputs[0])
    else:
        given = tf.nest.map_structure(numbers, _ends(model, kerases)[0])
    wants = tf.nest.flatten(model(given, training=False))
    gots = tf.nest.flatten(rebuilt(given, training=False))
    half = any(getattr(own, "compute_dtype", "") == "bfloat16" for own in model._flatten_layers())
    share = _BFLOAT16 if half else _ROUNDING
    for want, got in zip(wants, gots, strict=True):
        want, got = (np.asarray(tf.cast(value, tf.float32)) for value in (want, got))
        limit = share * float(np.abs(want[np.isfinite(want)]).max(initial=1e-30))
        if want.shape != got.shape or not np.allclose(
            want, got, rtol=0.0, atol=limit, equal_nan=True
        ):
            with np.errstate(invalid="ignore"):  # Infinity less infinity.
                worst = np.abs(want - got).max() if want.shape == got.shape else float("nan")
            raise ValueError(
                f"Model {model.name!r} was rebuilt, but returns something else: shapes "
                f"{want.shape} and {got.shape}, largest difference {worst:.3g}. "
                "One of its layers means something else in the other Keras: compare the outputs "
                "layer by layer."
            )
