"""A few images, clean and attacked, for the report's picture."""

import base64
import io
import math

import numpy as np

IMAGES = 4
ARTIFACTS = 3
# Longer sides are thinned for display; the perturbation of a kept pixel is not altered.
_LARGEST = 160


def collect_examples(column, opened, x, y, clean, outcome) -> dict | None:
    """Images with predictions of a few artifacts, as PNG in base64; None when not images.

    Of the first batch, those that most of the chosen artifacts get right when clean and that
    the attack tells apart: broken for one, not for another.

    Args:
        column: the attack, one with a radius.
        opened: name -> artifact.
        x, y: all inputs and labels.
        clean: name -> labels predicted without attack.
        outcome: what the attack did, with its pictures.
    """
    if not (x.ndim == 3 or (x.ndim == 4 and x.shape[-1] in (1, 3))) or min(x.shape[1:3]) < 4:
        return None
    chosen = _choose_artifacts(opened, outcome)
    rows = _choose_rows(chosen, y[: outcome.pictured], clean, outcome)
    bounds = getattr(column.attack, "bounds", (0.0, 1.0))
    images = []
    for row in rows:
        shown = []
        for name in chosen:
            source, label, example = _worst(outcome, name, row, y[row], (clean[name][row], x[row]))
            delta = example - x[row]
            scale = column.eps if column.norm == "linf" else float(np.abs(delta).max())
            shown.append(
                {
                    "artifact": name,
                    "source": source,
                    "clean_prediction": int(clean[name][row]),
                    "prediction": label,
                    "largest_change": float(np.abs(delta).max()),
                    "scale": float(scale),
                    "perturbation": _png(delta, (-scale, scale) if scale else (-1.0, 1.0)),
                    "adversarial": _png(example, bounds),
                }
            )
        images.append(
            {"index": int(row), "label": int(y[row]), "clean": _png(x[row], bounds), "shown": shown}
        )
    return {
        "attack": column.name,
        "eps": column.eps,
        "norm": column.norm,
        "bounds": [float(end) for end in bounds],
        "images": images,
    }


def _choose_artifacts(opened, outcome) -> list[str]:
    """The least robust, the most robust, and the last file: natural, robust and shipped."""
    names = list(opened)
    if len(names) <= ARTIFACTS:
        return names
    files = [name for name in names if opened[name].kind == "tflite"]
    others = [name for name in names if name not in files] or names

    def robust(name):
        return outcome.robust[name].mean()

    picked = {min(names, key=robust), max(others, key=robust), (files or names)[-1]}
    return [name for name in names if name in picked]


def _choose_rows(chosen, y, clean, outcome) -> list[int]:
    """Up to `IMAGES` rows, of different classes first."""
    right = sum((clean[name][: len(y)] == y).astype(int) for name in chosen)
    robust = sum(outcome.robust[name][: len(y)].astype(int) for name in chosen)
    # All right when clean; then broken for some but not for all; then broken for any.
    apart = (robust > 0) & (robust < len(chosen))
    score = 4 * (right == len(chosen)) + 2 * apart + (robust < len(chosen))
    order = np.argsort(-score, kind="stable")
    rows, seen = [], set()
    for row in order:
        if int(y[row]) not in seen and len(rows) < IMAGES:
            rows.append(int(row))
            seen.add(int(y[row]))
    rows += [int(row) for row in order if int(row) not in rows][: IMAGES - len(rows)]
    return sorted(rows)


def _worst(outcome, name, row, truth, clean):
    """Source, label and image of an example that is misclassified, else of the strongest source.

    An image that no attack was tried on, since the artifact gets it wrong anyway, is shown as
    it is.
    """
    tried = {label: at[row] for label, at in outcome.shown[name].items() if row in at}
    if not tried:
        return name, int(clean[0]), clean[1]

    def strength(label):
        return tried[label] != truth, outcome.broken[name][outcome.made_on[label]]

    label = max(tried, key=strength)
    return outcome.made_on[label], tried[label], outcome.examples[label][row]


def _png(image, bounds) -> str:
    """The image as PNG in base64, `bounds` black to white."""
    from PIL import Image

    image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    step = math.ceil(max(image.shape[:2]) / _LARGEST)
    low, high = bounds
    share = (image[::step, ::step].astype(np.float64) - low) / (high - low)
    # +0.5 and floor: no change at all is the same middle grey for every image.
    pixels = np.floor(np.clip(share, 0, 1) * 255 + 0.5).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
