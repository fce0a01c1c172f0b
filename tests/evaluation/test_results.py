import numpy as np
import pytest

from keras_robust.attacks import FAB, FGSM, PGD
from keras_robust.evaluation._columns import make_columns
from keras_robust.evaluation._outcome import Outcome
from keras_robust.evaluation._results import artifact_results, per_class, worst_case
from keras_robust.evaluation._sources import Source

pytestmark = pytest.mark.once

Y = np.array([0, 0, 1, 1, 2])
CLEAN = np.array([0, 0, 1, 0, 2])  # the fourth is wrong


def run(attack, name, *batches, asked=None):
    """A column and its outcome on artifact "m": one source, batches of (rows, labels, distance)."""
    (column,) = make_columns({name: attack}, 3)
    outcome = Outcome.of(column, {"m": CLEAN == Y})
    source = Source("twin", None, ("m",), asked)
    outcome.begin(column.stages[0], source)
    for rows, labels, distance in batches:
        rows, labels = np.array(rows), np.array(labels)
        fooled = (labels != Y[rows]) & outcome.robust["m"][rows]
        found = {"labels": {"m": labels}, "distance": np.array(distance), "queries": 7}
        outcome.add("m", rows, fooled, found)
    return column, outcome


def test_numbers_of_two_attacks_and_a_search():
    runs = [
        run(FGSM(0.1), "first", ([0, 1], [0, 2], [0, 0.1]), ([2, 4], [1, 2], [0, 0])),
        run(PGD(0.1), "second", ([0, 1, 2, 4], [1, 1, 1, 2], [0.1] * 4), asked=lambda: 0),
        run(FAB(), "search", ([0, 1, 2, 4], [1, 1, 1, 0], [0.5, 0.25, 0.0, 1.0])),
    ]
    found = artifact_results("m", runs, CLEAN, Y, 3)
    assert found["clean_accuracy"] == 0.8
    assert found["robust_accuracy"] == {"first": 0.6, "second": 0.4}
    assert found["worst_case"] == 0.4
    assert found["clean_per_class"] == [1.0, 0.5, 1.0]
    assert found["per_class"] == {"first": [0.5, 0.5, 1.0], "second": [0.0, 0.5, 1.0]}
    assert found["broken_by"] == {"first@twin": 1, "second@twin": 1}
    assert found["outcomes"] == [1, 0, -1, -2, -1]
    assert found["sources"] == {"first": {"twin": 1}, "second": {"twin": 2}, "search": {"twin": 3}}
    assert found["queries"] == {"second": 7}
    assert found["distortion"]["search"] == {
        "norm": "linf",
        "median": 0.5,
        "mean": pytest.approx(1.75 / 3),
        "found": 0.75,
        "values": [0.5, 0.25, None, 0.0, 1.0],
    }


def test_a_search_keeps_the_nearest_of_all_sources():
    column, outcome = run(FAB(), "search", ([0, 1], [1, 1], [0.5, 0.25]))
    outcome.begin(column.stages[0], Source("other", None, ("m",)))
    fooled = np.array([True, True])
    found = {"labels": {"m": np.array([1, 1])}, "distance": np.array([0.2, 0.9]), "queries": 0}
    outcome.add("m", np.array([0, 1]), fooled, found)
    assert outcome.distance["m"][:2].tolist() == [0.2, 0.25]
    assert outcome.broken["m"] == {"twin": 2, "other": 2}


def test_many_images_are_counted_but_not_listed(monkeypatch):
    monkeypatch.setattr("keras_robust.evaluation._results.KEPT_IMAGES", 4)
    runs = [run(FGSM(0.1), "a"), run(FAB(), "s", ([0], [1], [0.5]))]
    found = artifact_results("m", runs, CLEAN, Y, 3)
    assert found["outcomes"] is None and found["distortion"]["s"]["values"] is None
    assert found["distortion"]["s"]["median"] == 0.5


def test_worst_case_needs_a_radius():
    assert worst_case("m", [run(FAB(), "s")]) is None
    assert worst_case("m", [run(FGSM(0.1), "a")]).tolist() == (CLEAN == Y).tolist()
    assert worst_case("other", [run(FGSM(0.1), "a")]) is None


def test_classes_without_images_have_no_share():
    assert per_class(np.array([True, False]), np.array([2, 2]), 4) == [None, None, 0.5, None]
