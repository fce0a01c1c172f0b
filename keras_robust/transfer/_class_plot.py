"""Embeddings of several classes in the plane."""

from pathlib import Path

import numpy as np

from keras_robust._canvas import picture
from keras_robust._checks import check_labels
from keras_robust._marks import mark_of
from keras_robust.analysis._variance import check_matrix
from keras_robust.transfer._projection import low_dimensional_embedding


def class_plot(
    z, y, path, title: str = "Classes", *, class_names=None, largest: int = 2000, seed: int = 0
) -> Path:
    """Saves embeddings in their first two principal components, a colour and shape a class.

    Args:
        z: `(n, features)` floating point; its own components are taken.
        y: `(n,)` int labels.
        path: where the picture goes, .png, .svg or .pdf.
        title: above it.
        class_names: one a class; None for the numbers.
        largest: at most so many points, drawn at random, of all classes together.
        seed: of that choice.

    Returns:
        `path`.

    Raises:
        TypeError, ValueError: wrong inputs, or a path that cannot be written.
    """
    z, y = check_matrix(z), check_labels(y).numpy()
    if y.ndim != 1 or len(z) != len(y):
        raise ValueError(
            f"`y` must hold a class number for each of the {len(z)} rows of `z`, got shape "
            f"{y.shape}."
        )
    if class_names is not None and len(class_names) <= y.max():
        raise ValueError(
            f"`class_names` has {len(class_names)} names, but labels go up to {y.max()}."
        )
    fitted = low_dimensional_embedding(z, 2)
    plane = fitted(z)
    total = np.square(z - fitted.mean).sum()
    shares = np.square(plane).sum(axis=0, dtype=np.float64) / (total or 1.0)
    order = np.random.default_rng(seed).permutation(len(z))[:largest]

    def draw(axes):
        for label in np.unique(y):
            mark, rows = mark_of(int(label)), order[y[order] == label]
            axes.scatter(
                plane[rows, 0],
                plane[rows, 1],
                s=14,
                color=mark.color,
                marker=mark.marker,
                alpha=0.55,
                linewidths=0,
                label=str(label if class_names is None else class_names[label]),
            )
        axes.set_xlabel(f"first component, {shares[0]:.0%} of the variance")
        axes.set_ylabel(f"second component, {shares[1]:.0%} of the variance")
        axes.set_title(title, loc="left", wrap=True)
        axes.figure.legend(
            loc="outside right upper", frameon=False, fontsize=9, markerscale=1.6, handletextpad=0.2
        )

    return picture(draw, path, (6.2, 4.4))
