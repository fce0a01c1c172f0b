"""Who is fooled by whose adversarial examples, beside noise of the same size."""

import collections.abc
import dataclasses

import numpy as np

from keras_robust._checks import check_images, check_labels, check_logit_model, check_same_length
from keras_robust.analysis._minimum_distortion import (
    check_search,
    minimum_distortion,
    predict,
)
from keras_robust.analysis._perturbations import at_rms, gaussian
from keras_robust.attacks import LBFGS
from keras_robust.attacks import rms as rms_of
from keras_robust.attacks._attack import hard_labels


@dataclasses.dataclass(frozen=True, eq=False)
class TransferMatrix:
    """Errors of every model on the examples made for every other.

    Attributes:
        made_for: names of the rows, the models that examples were made for.
        tried_on: names of the columns, the models that were shown them.
        errors: `(rows, columns)` share of inputs misclassified.
        control: `(rows, columns)` the same with Gaussian noise that has, input by input, the
            distortion of the row's examples.
        clean: `(columns,)` errors without a perturbation.
        noise: RMS -> `(columns,)` errors with Gaussian noise of that distortion.
        distortion: `(rows,)` mean root mean square of the row's perturbations.
        found: `(rows,)` share of the examples that their own model misses before they are
            amplified.
        amplified: the RMS that perturbations were brought to, None for as they were found.
        images: number of inputs.
    """

    made_for: tuple[str, ...]
    tried_on: tuple[str, ...]
    errors: np.ndarray
    control: np.ndarray
    clean: np.ndarray
    noise: dict[float, np.ndarray]
    distortion: np.ndarray
    found: np.ndarray
    amplified: float | None
    images: int

    def table(self) -> str:
        """Errors in percent for a terminal; in brackets those with noise of the same size."""
        heads = ["made for", *self.tried_on, "mean RMS"]
        rows = [
            [
                name,
                *(
                    f"{100 * error:.1f} ({100 * noise:.1f})"
                    for error, noise in zip(errors, control, strict=True)
                ),
                f"{size:.3f}",
            ]
            for name, errors, control, size in zip(
                self.made_for, self.errors, self.control, self.distortion, strict=True
            )
        ]
        for rms, errors in self.noise.items():
            rows.append([f"Gaussian {rms:g}", *(f"{100 * e:.1f}" for e in errors), f"{rms:.3f}"])
        rows.append(["nothing", *(f"{100 * error:.1f}" for error in self.clean), "0"])
        columns = [_align(cells, left=not i) for i, cells in enumerate(zip(heads, *rows))]
        lines = ["  ".join(cells).rstrip() for cells in zip(*columns)]
        about = "as found" if self.amplified is None else f"amplified to RMS {self.amplified:g}"
        return "\n".join(
            [
                f"Errors in % on {self.images:,} inputs, perturbations {about}; in brackets with "
                "Gaussian noise of the same RMS",
                lines[0],
                "-" * len(lines[0]),
                *lines[1:],
            ]
        )

    def to_dict(self) -> dict:
        """All of it, ready for JSON."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in dataclasses.asdict(self).items()
            if name != "noise"
        } | {"noise": {f"{rms:g}": errors.tolist() for rms, errors in self.noise.items()}}

    def plot(self, path):
        """Saves a heat map of the errors as a picture; returns its path."""
        from keras_robust.analysis._figures import heat_map

        return heat_map(
            100 * self.errors,
            list(self.made_for),
            list(self.tried_on),
            path,
            "Errors (%) on examples made for another model",
        )


def transfer_matrix(
    models,
    x,
    y,
    attack=None,
    *,
    targets=None,
    rms: float | None = None,
    noise_rms=(),
    distortions=None,
    batch_size: int = 100,
    seed: int = 0,
) -> TransferMatrix:
    """Tables 2 to 4 of Szegedy et al. 2014, https://arxiv.org/abs/1312.6199.

    Examples are the smallest perturbations found for each model. Each row has its control:
    Gaussian noise of the same root mean square, input by input, after the clip to the bounds.

    Args:
        models: dict name -> Keras model or TensorFlow callable that returns logits.
        x: `(n, ...)` floating point inside the attack's bounds.
        y: `(n,)` int labels, or one-hot.
        attack, targets: as for `minimum_distortion`.
        rms: bring every perturbation to this root mean square before it is tried; the paper's
            "magnified to stddev 0.1". None: as found.
        noise_rms: further rows of Gaussian noise of these root mean squares.
        distortions: dict name -> what `minimum_distortion` returned for that model on the same
            `x` and `y`, to be used again.
        batch_size: inputs attacked at a time.
        seed: of attacks and noise.

    Returns:
        `TransferMatrix`, with `table()`, `to_dict()` and `plot(path)`.

    Raises:
        TypeError, ValueError: wrong inputs.

    >>> models = {"a": lambda x: (x - 0.5) @ [[-9.0, 9.0], [0.0, 0.0]]}
    >>> x, y = np.array([[0.9, 0.1], [0.2, 0.8]], "float32"), [1, 0]
    >>> transfer_matrix(models, x, y, kr.attacks.DeepFool()).errors.tolist()
    [[1.0]]
    """
    attack = LBFGS(targeted=targets is not None) if attack is None else attack
    check_search(attack)
    if not isinstance(models, collections.abc.Mapping) or not models:
        raise TypeError(f"`models` must be a dict name -> model, got {models!r}.")
    for name, model in models.items():
        check_logit_model(model, f"models[{name!r}]")
    for argument, values in (("rms", [] if rms is None else [rms]), ("noise_rms", noise_rms)):
        if any(not value > 0 for value in values):
            raise ValueError(f"`{argument}` must be > 0 in the units of the inputs, got {values}.")
    x, y = check_images(x, attack.bounds), check_labels(y)
    check_same_length(x, y)
    x, y = x.numpy(), hard_labels(y).numpy()

    def errors(inputs):
        return [float(np.mean(predict(m, inputs, batch_size) != y)) for m in models.values()]

    rows = []
    for name, model in models.items():
        own = (distortions or {}).get(name) or minimum_distortion(
            model, x, y, attack, targets=targets, batch_size=batch_size, seed=seed
        )
        if own.x_adv.shape != x.shape:
            raise ValueError(
                f"`distortions[{name!r}]` is of inputs of shape {own.x_adv.shape}, but `x` has "
                f"shape {x.shape}. Make it on the same inputs."
            )
        x_adv = own.x_adv if rms is None else at_rms(x, own.x_adv - x, rms, attack.bounds)
        sizes = rms_of(x, x_adv).numpy()
        noisy = gaussian(x, sizes, seed, attack.bounds)
        rows.append((errors(x_adv), errors(noisy), sizes.mean(), own.found.mean()))
    made, control, sizes, found = (np.array(column) for column in zip(*rows))
    return TransferMatrix(
        made_for=tuple(models),
        tried_on=tuple(models),
        errors=made,
        control=control,
        clean=np.array(errors(x)),
        noise={
            float(r): np.array(errors(gaussian(x, r, seed + 1, attack.bounds))) for r in noise_rms
        },
        distortion=sizes,
        found=found,
        amplified=rms,
        images=len(x),
    )


def _align(cells, left) -> list[str]:
    width = max(map(len, cells))
    return [cell.ljust(width) if left else cell.rjust(width) for cell in cells]
