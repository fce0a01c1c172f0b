"""Linear classifiers on embeddings: how well classes can be told apart in them."""

import dataclasses
import warnings

import numpy as np

from keras_robust._checks import check_labels
from keras_robust.analysis._variance import check_matrix

KINDS = ("max_margin", "logistic")


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
    """What a linear classifier reached on embeddings.

    Attributes:
        kind: "max_margin" or "logistic".
        accuracy: share of the test embeddings classified right, in [0, 1].
        train_accuracy: the same of those it was fitted on.
        predicted: `(n_test,)` class numbers.
        correct, total: test embeddings classified right, and all of them.
        converged: whether the fit ended before its largest number of iterations.
    """

    kind: str
    accuracy: float
    train_accuracy: float
    predicted: np.ndarray
    correct: int
    total: int
    converged: bool


def probe(
    z_train,
    y_train,
    z_test,
    y_test,
    kind: str = "max_margin",
    *,
    c: float = 1.0,
    standardize: bool = True,
    max_iter: int = 2000,
    seed: int = 0,
) -> Probe:
    """Fits a linear classifier on training embeddings and tries it on test embeddings.

    By scikit-learn: `LinearSVC` (one class against all others, squared hinge loss) for
    "max_margin", `LogisticRegression` (multinomial) for "logistic", both with an l2 penalty.
    Before, each feature gets the mean 0 and the standard deviation 1 that it has on the
    *training* embeddings; features that are constant there become 0.

    Args:
        z_train: `(n_train, features)` floating point.
        y_train: `(n_train,)` int labels, at least two classes.
        z_test: `(n_test, features)`.
        y_test: `(n_test,)`.
        kind: "max_margin" or "logistic".
        c: inverse strength of the penalty, > 0.
        standardize: False leaves the embeddings as they are.
        max_iter: most iterations of the fit.
        seed: of the order in which `LinearSVC` visits the examples.

    Returns:
        `Probe`.

    Raises:
        ImportError: scikit-learn is missing.
        TypeError, ValueError: wrong inputs.

    >>> z, y = np.array([[-2.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [2.0, 0.0]]), [0, 0, 1, 1]
    >>> probe(z, y, z, y).accuracy
    1.0
    """
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {KINDS}, got {kind!r}.")
    if not c > 0:
        raise ValueError(f"`c` must be > 0, got {c!r}.")
    (z_train, y_train), (z_test, y_test) = (
        _pair(z_train, y_train, "z_train", "y_train"),
        _pair(z_test, y_test, "z_test", "y_test"),
    )
    if z_train.shape[1] != z_test.shape[1]:
        raise ValueError(
            f"`z_test` has {z_test.shape[1]} features, but `z_train` has {z_train.shape[1]}."
        )
    if len(np.unique(y_train)) < 2:
        raise ValueError("`y_train` holds one class only: there is nothing to tell apart.")
    classifier = _classifier(kind, c, max_iter, seed)
    if standardize:
        mean, deviation = z_train.mean(axis=0), z_train.std(axis=0)
        # What is constant but for rounding carries nothing.
        flat = deviation <= 1e-6 * np.abs(mean)
        scale = np.where(flat, 0.0, 1.0 / np.where(flat, 1.0, deviation))
        z_train, z_test = (z_train - mean) * scale, (z_test - mean) * scale
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        classifier.fit(z_train, y_train)
    predicted = classifier.predict(z_test)
    correct = int(np.sum(predicted == y_test))
    return Probe(
        kind=kind,
        accuracy=correct / len(y_test),
        train_accuracy=float(np.mean(classifier.predict(z_train) == y_train)),
        predicted=predicted,
        correct=correct,
        total=len(y_test),
        converged=not any("Convergence" in warning.category.__name__ for warning in caught),
    )


def _classifier(kind, c, max_iter, seed):
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise ImportError(
            'kr.transfer.probe needs scikit-learn: pip install "keras-robust[transfer]".'
        ) from error
    if kind == "max_margin":
        return LinearSVC(C=c, dual="auto", max_iter=max_iter, random_state=seed)
    return LogisticRegression(C=c, max_iter=max_iter)


def _pair(z, y, z_name, y_name):
    z, y = check_matrix(z, z_name).astype(np.float64), check_labels(y, argument=y_name).numpy()
    if y.ndim != 1:
        raise ValueError(f"`{y_name}` must be class numbers (n,), got shape {y.shape}.")
    if len(z) != len(y):
        raise ValueError(
            f"`{z_name}` and `{y_name}` must have the same length, got {len(z)} and {len(y)}."
        )
    return z, y
