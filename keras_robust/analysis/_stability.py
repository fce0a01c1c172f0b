"""How far perturbations of the input move the activations of a layer."""

import dataclasses

import numpy as np

from keras_robust._checks import check_images, check_labels, check_same_length
from keras_robust.analysis._activations import check_batch_size, reader
from keras_robust.analysis._perturbations import gaussian
from keras_robust.attacks import PGD, Attack
from keras_robust.attacks import rms as rms_of

EPS = tuple(radius / 255 for radius in (1, 2, 4, 8, 12, 16))


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseStability:
    """Relative movement of activations against the relative size of the perturbation.

    Attributes:
        attack: short name of the attack.
        layer: name of the layer.
        eps: `(radii,)` of the attack.
        size: dict "adversarial", "random" -> `(radii,)` mean of `||d||^2 / ||x||^2`.
        moved: the same of `||f(x + d) - f(x)||^2 / ||f(x)||^2`, `f` being the network up to the
            layer.
        inputs: inputs whose activations are not zero, which the means are over.
    """

    attack: str
    layer: str
    eps: tuple[float, ...]
    size: dict
    moved: dict
    inputs: int

    def plot(self, path, title: str = "Movement of activations"):
        """Saves both curves as a picture; returns its path."""
        return plot_stability({"": self}, path, title)

    def to_dict(self) -> dict:
        """All of it, ready for JSON."""
        numbers = {
            name: {kind: values.tolist() for kind, values in getattr(self, name).items()}
            for name in ("size", "moved")
        }
        return {
            "attack": self.attack,
            "layer": self.layer,
            "eps": list(self.eps),
            "inputs": self.inputs,
            **numbers,
        }


def noise_stability(
    model,
    x,
    y,
    layer,
    attack=None,
    eps=EPS,
    *,
    made_for=None,
    batch_size: int = 100,
    seed: int = 0,
) -> NoiseStability:
    """How far adversarial and random perturbations move the activations of `layer`.

    Sanyal et al. 2018, https://arxiv.org/abs/1804.07090, figures of the noise stability: for
    each perturbation `d` the share `||d||^2 / ||x||^2` and what becomes of it,
    `||f(x + d) - f(x)||^2 / ||f(x)||^2`. Random ones are Gaussian and have, input by input, the
    l2 norm of the adversarial ones after the clip to the bounds.

    Args:
        model: functional or built sequential Keras model that returns logits.
        x: `(n, ...)` floating point inside the attack's bounds.
        y: `(n,)` int labels, or one-hot.
        layer: name of the layer, or the layer; its output is flattened.
        attack: attack with an `eps`, which the radii below replace; default `PGD(steps=20)`.
        eps: radii, in the units of the inputs.
        made_for: the model that examples are made for; None for `model` itself. Another one
            gives the paper's black-box curve.
        batch_size: inputs attacked at a time.
        seed: of attack and noise; batch `i` is attacked with `seed + i`.

    Returns:
        `NoiseStability`, with `plot(path)` and `to_dict()`.

    Raises:
        TypeError, ValueError: wrong inputs.
    """
    attack = PGD(eps=0.0, steps=20) if attack is None else attack
    if not isinstance(attack, Attack) or not any(
        field.name == "eps" for field in dataclasses.fields(attack)
    ):
        raise TypeError(
            f"`attack` must have an eps, such as kr.attacks.PGD(eps=8 / 255), got {attack!r}."
        )
    if attack.targeted:
        raise ValueError(
            f"`attack` is targeted, {attack!r}: with the true labels it would make the answers "
            "surer. Give one that is not."
        )
    eps = tuple(float(radius) for radius in np.ravel(eps))
    if not eps or not all(np.isfinite(radius) and radius >= 0 for radius in eps):
        raise ValueError(f"`eps` must hold radii >= 0, at least one, got {eps}.")
    batch_size = check_batch_size(batch_size)
    x, y = check_images(x, attack.bounds).numpy(), check_labels(y)
    check_same_length(x, y)
    y, made_for = y.numpy(), model if made_for is None else made_for

    read = reader(model, layer)

    def activations(inputs):
        return np.concatenate(list(read(inputs, batch_size))).astype(np.float64)

    clean = activations(x)
    base, ground = _energy(clean), _energy(x)
    used = (base > 0) & (ground > 0)
    if not used.any():
        raise ValueError(f"`layer`={layer!r} is zero for all inputs. Name another layer.")
    size, moved = {"adversarial": [], "random": []}, {"adversarial": [], "random": []}
    for radius in eps:
        x_adv = _attacked(made_for, x, y, dataclasses.replace(attack, eps=radius), batch_size, seed)
        noisy = gaussian(x, rms_of(x, x_adv).numpy(), seed, attack.bounds)
        for kind, inputs in (("adversarial", x_adv), ("random", noisy)):
            size[kind].append(np.mean((_energy(inputs - x) / np.where(used, ground, 1))[used]))
            far = _energy(activations(inputs) - clean) / np.where(used, base, 1)
            moved[kind].append(np.mean(far[used]))
    return NoiseStability(
        attack=attack.name,
        layer=layer if isinstance(layer, str) else layer.name,
        eps=eps,
        size={kind: np.array(values) for kind, values in size.items()},
        moved={kind: np.array(values) for kind, values in moved.items()},
        inputs=int(used.sum()),
    )


def plot_stability(stabilities, path, title: str = "Movement of activations"):
    """Saves the curves of several models in one picture.

    Args:
        stabilities: dict name -> `NoiseStability`.
        path: where the picture goes, .png, .svg or .pdf.
        title: above it.

    Returns:
        `path`.
    """
    from keras_robust.analysis._lines import lines

    curves = {
        f"{name} {kind}".strip(): (found.size[kind], found.moved[kind])
        for name, found in stabilities.items()
        for kind in found.size
    }
    return lines(
        curves,
        path,
        title,
        x_label="||d||² / ||x||²",
        y_label="||f(x + d) − f(x)||² / ||f(x)||²",
    )


def _attacked(model, x, y, attack, batch_size, seed) -> np.ndarray:
    batch_size = min(batch_size, len(x))
    found = []
    for index, start in enumerate(range(0, len(x), batch_size)):
        rows = np.arange(start, start + batch_size) % len(x)  # a constant shape: traced once
        count = min(batch_size, len(x) - start)
        found.append(attack(model, x[rows], y[rows], seed=seed + index).numpy()[:count])
    return np.concatenate(found)


def _energy(rows) -> np.ndarray:
    rows = np.asarray(rows, np.float64).reshape(len(rows), -1)
    return np.einsum("ij,ij->i", rows, rows)
