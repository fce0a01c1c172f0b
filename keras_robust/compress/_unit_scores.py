"""How much each unit of a model matters: how often it is zero, or how large its weights are."""

import numpy as np
import tensorflow as tf

from keras_robust._checks import check_images
from keras_robust.compress._surgery_kinds import activation_of
from keras_robust.compress._surgery_units import Units

SCORES = ("apoz", "l1", "l2")
_RELU = ("relu", "relu6")


def unit_scores(model, x=None, *, score="apoz", batch_size=256) -> dict[str, np.ndarray]:
    """A number for each unit of each layer that `PruneNeurons` could shrink.

    "apoz" is the average percentage of zeros of Hu et al. 2016 ("Network Trimming",
    https://arxiv.org/abs/1607.03250), as a share in [0, 1]: how often the unit is exactly
    zero after its ReLU, over all inputs and places of the map. "l1" and "l2" are the norms of
    a unit's incoming weights, biases apart (Li et al. 2017, https://arxiv.org/abs/1608.08710).
    Where an Add ties channels of several layers together, all of them get the mean of the
    members' scores: of their kernels' norms, or of all ReLUs that the unit goes through.

    Args:
        model: a built Sequential or functional model, which may hold others.
        x: for "apoz": inputs `(n, ...)`, float, or a tf.data.Dataset of batches of inputs or
            of `(inputs, ...)`.
        score: "apoz", "l1" or "l2".
        batch_size: inputs run at once, for arrays.

    Returns:
        Layer name -> float64 `(units,)`. NaN where a unit must stay, such as a logit, and for
        "apoz" where it goes through no ReLU. Layers all of whose units must stay are left out.

    Raises:
        ValueError, TypeError: an argument out of its range, or a model without a graph.

    >>> layers = [keras.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(2)]
    >>> model = keras.Sequential(layers)
    >>> model.layers[0].set_weights([np.eye(4, 3), np.array([0.0, 0.0, -2.0])])
    >>> list(unit_scores(model, np.ones((5, 4), "float32")).values())
    [array([0., 0., 1.])]
    """
    check_score(score)
    units = Units(model)
    found = measure(units, score, x, batch_size)
    table = {}
    for name, use in units.makers().items():
        stays = [unit in units.fixed for unit in use.outputs.tolist()]
        if not all(stays):
            table[name] = np.where(stays, np.nan, found[use.outputs])
    return table


def check_score(score) -> None:
    """Raises `ValueError` unless `score` is one of `SCORES`."""
    if score not in SCORES:
        raise ValueError(f"`score` must be one of {SCORES}, got {score!r}.")


def measure(units: Units, score: str, x=None, batch_size: int = 256) -> np.ndarray:
    """The score of each unit, `(units.count,)` float64; NaN where it has none."""
    if score == "apoz":
        return _apoz(units, _batches(units, x, batch_size))
    mean = _Mean(units.count)
    for use in units.makers().values():
        # The last kernel makes the outputs, also in a separable convolution.
        kernels = [w for w in use.call.layer.get_weights() if w.ndim > 1]
        kernel = np.asarray(kernels[-1], np.float64).reshape(-1, len(use.outputs))
        mean.add(use.outputs, np.linalg.norm(kernel, 1 if score == "l1" else 2, axis=0))
    return mean.result()


def without_relu(units: Units) -> dict[int, str | None]:
    """Unit -> the activation it goes through instead of a ReLU, None for a linear one."""
    relu, other = set(), {}
    for call in units.graph.calls:
        name = activation_of(call.layer)
        ids = units.of[call.outputs[0]].tolist()
        if name in _RELU:
            relu.update(ids)
        elif name is not None:
            other.update(dict.fromkeys(ids, name))
    makers = (use.outputs.tolist() for use in units.makers().values())
    return {unit: other.get(unit) for ids in makers for unit in ids if unit not in relu}


def _apoz(units: Units, batches) -> np.ndarray:
    zeros, seen = {}, {}

    def watch(slot, value):
        if slot in wanted:
            axes = list(range(value.shape.rank - 1))
            count = tf.math.count_nonzero(tf.equal(value, 0), axes)
            zeros[slot] = zeros.get(slot, 0) + count.numpy()
            seen[slot] = seen.get(slot, 0) + int(tf.size(value)) // value.shape[-1]

    calls = [call for call in units.graph.calls if activation_of(call.layer) in _RELU]
    wanted = {call.outputs[0] for call in calls if len(units.of[call.outputs[0]])}
    for batch in batches:
        units.graph.run(batch, lambda call, args, kwargs: call.layer(*args, **kwargs), watch)
    mean = _Mean(units.count)
    for slot, count in zeros.items():
        mean.add(units.of[slot], count / seen[slot])
    return mean.result()


def _batches(units: Units, x, batch_size):
    if x is None:
        raise ValueError(
            'score="apoz" counts zeros on inputs: give some, `x`, an array (n, ...) or a '
            'tf.data.Dataset, or take score="l1" or "l2".'
        )
    if isinstance(x, tf.data.Dataset):
        batches = (batch[0] if isinstance(batch, tuple) else batch for batch in x)
    else:
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"`batch_size` must be a positive integer, got {batch_size!r}.")
        x = check_images(x)
        batches = (x[k : k + batch_size] for k in range(0, len(x), batch_size))
    empty = True
    for batch in batches:
        empty = False
        batch = check_images(batch)
        shape = units.graph.input.shape[1:]
        wrong = len(shape) != batch.shape.rank - 1
        if wrong or any(n not in (None, m) for n, m in zip(shape, batch.shape[1:], strict=True)):
            raise ValueError(
                f"`x` must have shape (n, {', '.join(map(str, shape))}) as the model takes it, "
                f"got {tuple(batch.shape)}."
            )
        yield batch
    if empty:
        raise ValueError("`x` is empty. Give at least one batch of inputs.")


class _Mean:
    """The mean of what is said of each unit, by whichever layers say it."""

    def __init__(self, count):
        self._sum, self._count = np.zeros(count), np.zeros(count, int)

    def add(self, ids, values) -> None:
        np.add.at(self._sum, ids, values)
        np.add.at(self._count, ids, 1)

    def result(self) -> np.ndarray:
        known = self._count > 0
        return np.where(known, self._sum / np.maximum(self._count, 1), np.nan)
