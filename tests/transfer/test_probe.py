"""Probes where the answer is known."""

import sys

import numpy as np
import pytest

from keras_robust.transfer import probe

pytest.importorskip("sklearn")


@pytest.fixture
def points(rng):
    """Four features, the last constant; three classes by the first two."""

    def make(count, spread):
        y = np.arange(count) % 3
        centres = np.array([[3.0, 0.0], [-3.0, 3.0], [-3.0, -3.0]])[y]
        z = np.concatenate([centres, np.zeros((count, 1)), np.full((count, 1), 7.0)], axis=1)
        z[:, :3] += spread * rng.normal(size=(count, 3))
        return z, y

    return make


@pytest.mark.parametrize("kind", ["max_margin", "logistic"])
def test_separable_classes_are_told_apart(points, kind):
    found = probe(*points(60, 0.5), *points(31, 0.5), kind)
    assert (found.accuracy, found.train_accuracy, found.correct, found.total) == (1, 1, 31, 31)
    assert found.converged and found.kind == kind and found.predicted.shape == (31,)


@pytest.mark.parametrize("kind", ["max_margin", "logistic"])
def test_labels_without_meaning_are_guessed(rng, kind):
    z, y = rng.normal(size=(400, 3)), rng.integers(0, 2, 400)
    test = rng.normal(size=(400, 3)), rng.integers(0, 2, 400)
    assert 0.4 < probe(z, y, *test, kind).accuracy < 0.6


@pytest.mark.parametrize("kind", ["max_margin", "logistic"])
def test_units_of_features_do_not_matter_when_standardised(points, kind):
    (z, y), (z_test, y_test) = points(60, 2.0), points(60, 2.0)
    units = np.array([1e3, 1e-3, 1.0, 1.0])
    scaled = probe(z * units, y, z_test * units, y_test, kind)
    np.testing.assert_array_equal(scaled.predicted, probe(z, y, z_test, y_test, kind).predicted)
    raw = probe(z * units, y, z_test * units, y_test, kind, standardize=False)
    assert raw.accuracy != scaled.accuracy


def test_the_margin_is_the_widest():
    z = np.array([[-1.0, 0.0], [1.0, 0.0], [-9.0, 5.0], [9.0, -5.0]])
    test = np.array([[-0.1, 9.0], [0.1, -9.0]])
    found = probe(z, [0, 1, 0, 1], test, [0, 1], c=1e4, standardize=False, max_iter=10**6)
    # The nearest pair alone decides: the second feature is not looked at.
    assert found.predicted.tolist() == [0, 1]


def test_it_repeats(points):
    train, test = points(90, 3.0), points(90, 3.0)
    one, same = (probe(*train, *test, seed=3).predicted for _ in range(2))
    np.testing.assert_array_equal(one, same)


def test_a_fit_that_was_stopped_says_so(points):
    assert not probe(*points(90, 3.0), *points(9, 3.0), "logistic", max_iter=1).converged


def test_without_scikit_learn_the_extra_is_named(points, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(ImportError, match=r"pip install \"keras-robust\[transfer\]\""):
        probe(*points(6, 0.1), *points(6, 0.1))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kind": "svm"}, ValueError, "`kind` must be one of"),
        ({"c": 0}, ValueError, "`c` must be > 0"),
        ({"y_train": [0, 1]}, ValueError, "`z_train` and `y_train` must have the same length"),
        ({"y_train": [0] * 6}, ValueError, "holds one class only"),
        ({"z_test": np.ones((6, 3))}, ValueError, "`z_test` has 3 features"),
        ({"z_test": np.ones((6, 4), int)}, TypeError, "`z_test` must be floating-point"),
        ({"y_test": [0.5] * 6}, ValueError, "`y_test` must hold whole class numbers"),
    ],
)
def test_wrong_input_says_what_to_do(points, arguments, error, message):
    z, y = points(6, 0.1)
    given = {"z_train": z, "y_train": y, "z_test": z, "y_test": y, **arguments}
    with pytest.raises(error, match=message):
        probe(**given)
