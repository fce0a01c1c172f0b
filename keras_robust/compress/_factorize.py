"""A trained layer as two thin ones, by its singular values."""

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from keras_robust._keras import keras
from keras_robust.compress._graph import Names, plain_layers, replace
from keras_robust.compress._plan import Plan, choose
from keras_robust.compress._ranks import allot, by_energy, largest
from keras_robust.compress._stage import Context, freeze_layers
from keras_robust.layers import ConditionPenalty


@dataclass(frozen=True)
class Factorize:
    """Puts two layers of low rank in the place of each Dense and Conv2D.

    The kernel, a matrix of M x N (k k I x O for a convolution), is cut to its first K singular
    values: U sqrt(S) goes into a first layer of K outputs without bias or activation (a
    convolution of the same window, strides, padding and dilation), sqrt(S) V^T into a second
    one (1x1), which has the bias, the activation and the name. That is K (M + N) weights, fewer
    where K < M N / (M + N). A regularizer or constraint of the kernel stays behind: on factors
    it would mean something else.

    Factorized networks tend to lose adversarial robustness as their factors become
    ill-conditioned (https://arxiv.org/abs/2306.01485, https://arxiv.org/abs/2505.08022):
    fine-tune them adversarially, and see `penalty`. `kr.layers.LowRankVirtual` restricts the
    activations instead, `kr.layers.LowRankDense` is such a pair to train from scratch.

    Args:
        rank: K, one for all layers or a dict name -> K.
        energy: share of the squared singular values that each layer keeps, in (0, 1].
        budget: share of the weights of the chosen layers' kernels to keep, in (0, 1); the ranks
            are allotted over the layers by their singular values, and where a cut would lose
            much and save little, a layer stays whole.
        layers: names, or a function layer -> bool; None for each Dense and Conv2D that gets
            smaller. Give exactly one of `rank`, `energy` and `budget`.
        penalty: weight of a `kr.layers.ConditionPenalty` on both factors, 0 for none. In a
            `Recipe` it holds while the stage is fine-tuned; `apply` leaves it in the layers.

    Raises:
        TypeError, ValueError: an argument out of its range; with a model, a layer that cannot be
            factorized or would grow, by name and with the largest rank that pays.

    >>> layers = [keras.Input((8, 8, 4)), keras.layers.Conv2D(16, 3, name="conv")]
    >>> print(Factorize(rank=4).plan(keras.Sequential(layers)))  # doctest: +ELLIPSIS
    layer  kind    rank  weights  after   kept  relative error
    conv   Conv2D     4      576    208  0.361          0...
    """

    rank: Any = None
    energy: float | None = None
    budget: float | None = None
    layers: Any = None
    penalty: float = 0.0

    name: ClassVar[str] = "factorized"
    verb: ClassVar[str] = "factorize"
    learning_rate: ClassVar[float] = 1e-3

    def __post_init__(self):
        given = [n for n in ("rank", "energy", "budget") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                "Give exactly one of `rank`, `energy` and `budget`, got "
                f"{', '.join(given) or 'none'}. Factorize(budget=0.5) halves the weights."
            )
        _share("energy", self.energy, one=True)
        _share("budget", self.budget, one=False)
        ConditionPenalty(self.penalty)
        layers = freeze_layers(self.layers)
        if isinstance(self.rank, Mapping):
            if layers is not None:
                raise ValueError("`layers` has no meaning beside a dict `rank`, which names them.")
            for name, rank in self.rank.items():
                _whole(f"rank[{name!r}]", rank)
            layers = freeze_layers(list(self.rank))
        elif self.rank is not None:
            _whole("rank", self.rank)
        object.__setattr__(self, "layers", layers)

    def plan(self, model) -> Plan:
        """What `apply` would do to `model`: ranks, weights, and the error of each kernel."""
        return Plan([found.row(rank) for found, rank in self._decided(model)])

    def apply(self, model):
        """A new model with the factorized layers, not fine-tuned and not compiled.

        Args:
            model: functional or built sequential Keras model, in either Keras; models inside it
                are kept. It is left as it is. A layer that is called several times is
                factorized once.

        Returns:
            A Keras model of plain layers: `<name>_rank` and `<name>` for each one.

        Raises:
            TypeError, ValueError: as by the class.
        """
        ranks = {id(found.layer): rank for found, rank in self._decided(model) if rank}
        names = Names(model)
        penalty = ConditionPenalty(self.penalty) if self.penalty else None

        def make(layer):
            if id(layer) not in ranks:
                return None
            return factor(layer, ranks[id(layer)], names(f"{layer.name}_rank"), penalty)

        return replace(model, make)

    def check(self, model, context: Context) -> list[str]:
        """The names of the layers to factorize; raises `ValueError` when something is wrong."""
        return [found.layer.name for found, rank in self._decided(model) if rank]

    def wrap(self, model, context: Context):
        """A copy of the flat `model`, factorized, with the penalty."""
        return self.apply(model)

    def callbacks(self, wrapped, context: Context) -> list:
        """None."""
        return []

    def strip(self, wrapped, model):
        """A copy of `wrapped` without the penalty on its factors."""
        whole = {_name_and_shape(layer) for layer in plain_layers(model)}

        def make(layer):
            return None if _name_and_shape(layer) in whole else _without_penalty(layer)

        return replace(wrapped, make)

    def broken(self, before: dict, after: dict, layers: list[str], context) -> list[str]:
        """Nothing: the shapes of the factors keep the rank."""
        return []

    def _decided(self, model) -> list:
        """Each layer to factorize, decomposed, and its rank."""
        found = [_Decomposed(layer) for layer in choose(model, self.layers, _reason, self.verb)]
        if self.budget is not None:
            spectra, shapes = [d.values for d in found], [d.shape for d in found]
            return list(zip(found, allot(spectra, shapes, self.budget), strict=True))
        if self.energy is not None:
            ranks = [by_energy(d.values, self.energy) for d in found]
        elif isinstance(self.rank, Mapping):
            ranks = [self.rank[d.layer.name] for d in found]
        else:
            ranks = [self.rank] * len(found)
        pairs = list(zip(found, ranks, strict=True))
        paying = [(d, rank) for d, rank in pairs if rank <= largest(*d.shape)]
        growing = [_grows(d, rank) for d, rank in pairs if rank > largest(*d.shape)]
        by_name = isinstance(self.layers, tuple)
        if growing and (by_name or not paying):
            raise ValueError("Nothing would get smaller. " * (not by_name) + " ".join(growing))
        return paying


def factor(layer, rank: int, name: str, penalty=None) -> list:
    """The two layers that stand for a Dense or Conv2D at `rank`, each with its weights.

    At full rank they are the layer, to float rounding.
    """
    left, values, right = np.linalg.svd(_matrix(layer), full_matrices=False)
    root = np.sqrt(values[:rank])
    kernels = [left[:, :rank] * root, root[:, None] * right[:rank]]
    first, second = _own_config(layer, penalty), _own_config(layer, penalty)
    first |= {"name": name, "activation": "linear", "use_bias": False}
    first |= {"bias_regularizer": None, "bias_constraint": None, "activity_regularizer": None}
    if isinstance(layer, keras.layers.Conv2D):
        first["filters"] = rank
        second |= {"kernel_size": (1, 1), "strides": (1, 1), "dilation_rate": (1, 1)}
        second["padding"] = "valid"
        window = tuple(layer.kernel.shape[:-1])
        kernels = [kernels[0].reshape(*window, rank), kernels[1][None, None]]
    else:
        first["units"] = rank
    weights = [[kernel.astype("float32")] for kernel in kernels]
    if layer.use_bias:
        weights[1].append(np.asarray(layer.bias))
    kind = type(layer)
    return [
        (kind.from_config(config), own)
        for config, own in zip((first, second), weights, strict=True)
    ]


class _Decomposed:
    """A layer and the singular values of its kernel."""

    def __init__(self, layer):
        self.layer = layer
        matrix = _matrix(layer)
        self.shape = matrix.shape
        self.values = np.linalg.svd(matrix, compute_uv=False)

    def row(self, rank: int | None) -> dict:
        energy = np.square(self.values)
        lost = float(energy[rank:].sum() / energy.sum()) if rank and energy.any() else 0.0
        return {
            "layer": self.layer.name,
            "kind": type(self.layer).__name__,
            "rank": None if rank is None else int(rank),
            "weights_before": math.prod(self.shape),
            "weights_after": math.prod(self.shape) if rank is None else int(rank) * sum(self.shape),
            "error": math.sqrt(lost),
        }


def _matrix(layer) -> np.ndarray:
    kernel = np.asarray(layer.kernel, "float64")
    return kernel.reshape(-1, kernel.shape[-1])


def _reason(layer) -> str | None:
    """Why `layer` cannot be factorized, or None."""
    if type(layer) not in (keras.layers.Dense, keras.layers.Conv2D):
        return f"{type(layer).__name__} is neither Dense nor Conv2D"
    if getattr(layer, "groups", 1) != 1:
        return f"its {layer.groups} groups are as many matrices"
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return 'its data_format is "channels_first"'
    rows, columns = _matrix(layer).shape
    if largest(rows, columns) < 1:
        return f"its {rows} x {columns} kernel is smaller than two factors of rank 1"
    return None


def _grows(found: _Decomposed, rank: int) -> str:
    rows, columns = found.shape
    return (
        f"The layer {found.layer.name!r} would not get smaller at rank {rank}: {rank} x ({rows} + "
        f"{columns}) = {rank * (rows + columns):,} weights for its {rows * columns:,}. The largest "
        f"rank that pays is {largest(rows, columns)}."
    )


def _own_config(layer, penalty) -> dict:
    """The config of `layer` with nothing on its kernel but the penalty."""
    config = dict(layer.get_config())
    config.pop("batch_input_shape", None)  # tf_keras notes it of the first layer.
    written = None if penalty is None else keras.regularizers.serialize(penalty)
    return config | {"kernel_regularizer": written, "kernel_constraint": None}


def _name_and_shape(layer) -> tuple:
    """Tells a layer from its second factor, which has its name and a smaller kernel."""
    return layer.name, tuple(getattr(getattr(layer, "kernel", None), "shape", ()))


def _without_penalty(layer):
    if not isinstance(getattr(layer, "kernel_regularizer", None), ConditionPenalty):
        return None
    return [(type(layer).from_config(_own_config(layer, None)), layer.get_weights())]


def _whole(name, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"`{name}` must be a whole number >= 1, got {value!r}.")


def _share(name, value, one: bool):
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{name}` must be a number, got {value!r}.")
    if not 0 < value <= 1 or (value == 1 and not one):
        raise ValueError(f"`{name}` must be in (0, 1{']' if one else ')'}, got {value!r}.")
