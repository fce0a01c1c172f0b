"""What the layers with factorized kernels share: checks, their start, and their config."""

import math
import numbers


class Factorized:
    """The part of a layer `x -> activation(x U V + bias)` that is the same for all kinds.

    U is `(..., rank)` and V `(..., rank, outputs)`; nothing stands between them.
    """

    keras = None

    def set_arguments(
        self,
        rank,
        activation,
        use_bias,
        kernel_initializer,
        bias_initializer,
        kernel_regularizer,
        bias_regularizer,
        kernel_constraint,
        bias_constraint,
    ):
        check_whole("rank", rank)
        self.rank = int(rank)
        self.activation = self.keras.activations.get(activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = self.keras.initializers.get(kernel_initializer)
        _check_scaling(self.keras, self.kernel_initializer)
        self.bias_initializer = self.keras.initializers.get(bias_initializer)
        self.kernel_regularizer = self.keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = self.keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = self.keras.constraints.get(kernel_constraint)
        self.bias_constraint = self.keras.constraints.get(bias_constraint)

    def add_factors(self, window: tuple, inputs: int, outputs: int):
        """Makes `kernel_in`, `kernel_out` and `bias`; `window` is () for a dense layer."""
        rows = math.prod(window) * inputs
        if self.rank > min(rows, outputs):
            raise ValueError(
                f"`rank` of layer {self.name!r} must be at most {min(rows, outputs)}, the smaller "
                f"side of its {rows} x {outputs} kernel, got {self.rank}."
            )
        first, second = _starts(
            self.keras, self.kernel_initializer, window, inputs, outputs, self.rank
        )
        ones = (1,) * len(window)
        common = {"regularizer": self.kernel_regularizer, "constraint": self.kernel_constraint}
        self.kernel_in = self.add_weight(
            name="kernel_in", shape=(*window, inputs, self.rank), initializer=first, **common
        )
        self.kernel_out = self.add_weight(
            name="kernel_out", shape=(*ones, self.rank, outputs), initializer=second, **common
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(outputs,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.built = True

    def finish(self, outputs):
        """`outputs` with the bias, activated."""
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs if self.activation is None else self.activation(outputs)

    def common_config(self) -> dict:
        config = {
            "rank": self.rank,
            "activation": self.keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
        }
        for family in ("initializer", "regularizer", "constraint"):
            write = getattr(self.keras, f"{family}s").serialize
            for weight in ("kernel", "bias"):
                value = getattr(self, f"{weight}_{family}")
                config[f"{weight}_{family}"] = None if value is None else write(value)
        return config


def check_whole(name: str, value) -> None:
    """Raises `ValueError` unless `value` is a whole number >= 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"`{name}` must be a whole number >= 1, got {value!r}.")


def _check_scaling(keras, initializer) -> None:
    if not isinstance(initializer, keras.initializers.VarianceScaling):
        raise ValueError(
            "`kernel_initializer` must be one that scales its variance with the size of the "
            'kernel: "glorot_uniform", "he_normal", "lecun_normal" or another VarianceScaling; got '
            f"{initializer!r}. The factors start such that their product has that variance."
        )


def _starts(keras, scaling, window, inputs, outputs, rank):
    """Initializers of both factors, whose product has the variance that `scaling` stands for.

    U = g Q and V = g P with orthonormal columns of Q and rows of P: a product of variance
    g^4 rank / (rows outputs) with a condition number of 1. Factors of independent numbers would
    have the same variance and a condition number that grows with the rank.
    """
    positions = math.prod(window)
    fans = {"fan_in": positions * inputs, "fan_out": positions * outputs}
    fans["fan_avg"] = (fans["fan_in"] + fans["fan_out"]) / 2
    fans["fan_geo_avg"] = math.sqrt(fans["fan_in"] * fans["fan_out"])
    variance = scaling.scale / fans[scaling.mode]
    gain = (variance * positions * inputs * outputs / rank) ** 0.25
    seed = scaling.get_config().get("seed")
    seeds = (seed, seed + 1) if isinstance(seed, numbers.Integral) else (None, None)
    return [keras.initializers.Orthogonal(gain=gain, seed=own) for own in seeds]
