"""Suites, searches, controls and black boxes through `evaluate`, with outcomes known by hand."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.attacks import FGSM, PGD, Square
from keras_robust.evaluation import evaluate

QUIET = {"progress": False, "latency_runs": 1, "eps_sweep": ()}


@dataclasses.dataclass(frozen=True)
class Suite:
    """Stages as given."""

    parts: dict
    eps: float = 0.3
    norm: str = "linf"
    name: str = "suite"

    def stages(self, classes):
        return self.parts

    def __call__(self, model, x, y, seed=0):
        raise AssertionError("a suite's stages are run one by one")


class Spied:
    """An attack that notes which images it was given."""

    def __init__(self, attack, seen):
        self.attack, self.seen, self.name = attack, seen, attack.name
        self.eps, self.norm = attack.eps, attack.norm

    def __call__(self, model, x, y, seed=0):
        self.seen.append([round(float(value), 3) for value in x[:, 0]])
        return self.attack(model, x, y, seed)


def band(x):
    """Class 1 within 0.2 of the middle."""
    distance = tf.abs(x[:, :1] - 0.5)
    return tf.concat([distance, tf.zeros_like(distance) + 0.2], -1)


@pytest.fixture
def suite(shift):
    """Up by 0.15, then up by 0.1 and down by 0.3, on five images; and what they were given."""
    seen = {"up": [], "less": [], "down": []}
    parts = {
        "up": Spied(shift(0.15, direction=1.0), seen["up"]),
        "less": Spied(shift(0.1, direction=1.0), seen["less"]),
        "down": Spied(shift(0.3), seen["down"]),
    }
    # 0.9 is wrong when clean; up breaks 0.6 and 0.65, down 0.4 and 0.45; 0.52 is broken by down.
    x = np.array([[0.6], [0.65], [0.4], [0.45], [0.52], [0.9]], np.float32)
    return Suite(parts), x, np.ones(6, int), seen


def test_each_stage_sees_what_the_ones_before_left(suite):
    attack, x, y, seen = suite
    found = evaluate({"m": band}, x, y, [attack], **QUIET).to_dict()["artifacts"]["m"]
    assert found["robust_accuracy"] == {"suite": 0.0} and found["worst_case"] == 0.0
    assert found["clean_accuracy"] == pytest.approx(5 / 6)
    assert found["stages"] == {"suite": {"up": 2, "less": 0, "down": 3}}
    assert found["broken_by"] == {"suite/up@m": 2, "suite/less@m": 0, "suite/down@m": 3}
    assert found["outcomes"] == [0, 0, 2, 2, 2, -2]
    assert set(seen["up"][0]) == {0.6, 0.65, 0.4, 0.45, 0.52}
    assert set(seen["less"][0]) == set(seen["down"][0]) == {0.4, 0.45, 0.52}


def test_progress_counts_the_images_that_stand(suite):
    attack, x, y, _ = suite
    lines = []
    evaluate({"m": band}, x, y, [attack], **{**QUIET, "progress": lines.append})
    assert lines[-3:] == [
        "suite/up on m: 5/5 images, still standing: m 3",
        "suite/less on m: 3/3 images, still standing: m 3",
        "suite/down on m: 3/3 images, still standing: m 0",
    ]


def test_batches_of_a_late_stage_are_few_and_small(suite):
    attack, x, y, seen = suite
    evaluate({"m": band}, np.tile(x, (8, 1)), np.tile(y, 8), [attack], batch_size=40, **QUIET)
    assert [len(batch) for batch in seen["up"]] == [40]
    assert [len(batch) for batch in seen["less"]] == [40]  # 24 images, one shape
    assert seen["down"] == seen["less"]


def test_attacks_beside_a_suite_are_counted_alone(suite, shift):
    attack, x, y, _ = suite
    attacks = {"first": shift(0.3), "suite": attack, "again": shift(0.3)}
    found = evaluate({"m": band}, x, y, attacks, **QUIET).to_dict()["artifacts"]["m"]
    # Down by 0.3 breaks 0.4, 0.45, 0.52 but 0.6 and 0.65 stay in the band.
    assert found["robust_accuracy"]["first"] == found["robust_accuracy"]["again"] == 2 / 6
    assert found["broken_by"]["first@m"] == 3 and found["broken_by"]["again@m"] == 0
    assert found["broken_by"]["suite/up@m"] == 2
    assert found["stages"]["suite"] == {"up": 2, "less": 0, "down": 3}


def test_classes_have_accuracies_of_their_own(inside):
    model, x, y, radius = inside()
    found = evaluate({"m": model}, x, y, [FGSM(0.02)], **QUIET).to_dict()["artifacts"]["m"]
    expected = [(radius[y == label] > 0.02).mean() for label in (0, 1)]
    assert found["per_class"] == {"FGSM": pytest.approx(expected)}
    assert found["clean_per_class"] == [1.0, 1.0]
    only = evaluate({"m": model}, x[y == 0], y[y == 0], [FGSM(0.02)], **QUIET).to_dict()
    assert only["artifacts"]["m"]["per_class"]["FGSM"][1] is None


class ToBoundary:
    """The smallest linf perturbation of a two-class linear model, exact; not for all images."""

    name, eps, norm, searches = "exact", None, "linf", True

    def __init__(self, model, skip=0):
        self.model, self.skip = model, skip

    def __call__(self, model, x, y, seed=0):
        gap = np.diff(self.model.weights)[:, 0]
        logits = np.asarray(model(x), np.float64)
        margin = logits[:, 1] - logits[:, 0]
        step = -1.001 * margin / np.abs(gap).sum()
        step[: self.skip] = 0
        return (x + step[:, None] * np.sign(gap)).astype("float32")


def test_searches_give_distances_and_no_accuracy(inside):
    model, x, y, radius = inside()
    attacks = [FGSM(0.02), ToBoundary(model, skip=3)]
    data = evaluate({"m": model}, x, y, attacks, **QUIET).to_dict()
    found = data["artifacts"]["m"]
    assert list(found["robust_accuracy"]) == ["FGSM"]
    assert found["worst_case"] == (radius > 0.02).mean()
    distortion = found["distortion"]["exact"]
    assert distortion["values"][:3] == [None] * 3 and distortion["norm"] == "linf"
    np.testing.assert_allclose(distortion["values"][3:], 1.001 * radius[3:], rtol=1e-4)
    assert distortion["median"] == pytest.approx(np.median(1.001 * radius[3:]), rel=1e-4)
    assert distortion["mean"] == pytest.approx(np.mean(1.001 * radius[3:]), rel=1e-4)
    assert distortion["found"] == 57 / 60
    assert "exact" not in " ".join(found["broken_by"])


def test_images_that_are_wrong_need_no_perturbation(inside):
    model, x, y, radius = inside()
    wrong = np.array(y)
    wrong[:10] = 1 - wrong[:10]
    data = evaluate({"m": model}, x, wrong, [ToBoundary(model)], **QUIET).to_dict()
    found = data["artifacts"]["m"]["distortion"]["exact"]
    assert found["values"][:10] == [0.0] * 10 and found["found"] == 1.0
    assert found["median"] == pytest.approx(np.median(1.001 * radius[10:]), rel=1e-4)
    assert data["artifacts"]["m"]["worst_case"] is None


def test_controls_stand_beside_the_worst_case(inside, shift):
    model, x, y, radius = inside()

    class Noise:
        name, eps, norm, searches = "noise", None, "l2", False

        def __call__(self, model, x, y, seed=0):
            return 1 - x  # breaks every image: the boundary passes through the middle

    report = evaluate({"m": model}, x, y, [FGSM(0.02), Noise()], **QUIET)
    found = report.to_dict()["artifacts"]["m"]
    assert found["robust_accuracy"] == {"FGSM": (radius > 0.02).mean(), "noise": 0.0}
    assert found["worst_case"] == (radius > 0.02).mean()
    assert list(found["broken_by"]) == ["FGSM@m"]
    assert '"noise": no radius' in report.table()
    alone = evaluate({"m": model}, x, y, [Noise()], **QUIET)
    assert alone.to_dict()["artifacts"]["m"]["worst_case"] is None
    heads, row = (line.split() for line in alone.summary().splitlines())
    # A control gives no accuracy in the worst case, no radius and no norm.
    assert heads == "name clean % AutoAttack % worst % eps norm KB".split()
    assert row == ["m", "100.0", "-", "-", "-", "-", "-"]


def test_a_file_is_asked_directly(inside, tflite_file):
    model, x, y, radius = inside(count=30)
    report = evaluate(
        {"file": tflite_file(model, 12)},
        x,
        y,
        [PGD(0.02, steps=3)],
        twins={"file": lambda x: model(x + 0.2)},
        black_box=[Square(0.02, queries=300)],
        **QUIET,
    )
    found = report.to_dict()["artifacts"]["file"]
    # Square is exact here: a corner of the ball is one of its candidates.
    assert found["worst_case"] == pytest.approx((radius > 0.02).mean(), abs=0.1)
    transferred = found["broken_by"]["PGD-3@twin"]
    asked = found["broken_by"]["Square-300@file"]
    assert transferred + asked == round(30 * (1 - found["worst_case"]))
    assert found["queries"]["Square-300"] > 300
    assert list(found["robust_accuracy"]) == ["PGD-3"]
    assert "attacks ran that only ask it: Square-300 broke" in report.table().replace("\n", " ")


def test_attacks_without_gradients_need_no_twin(inside, tflite_file):
    model, x, y, radius = inside(count=30)
    artifacts = {"file": tflite_file(model, 12), "model": model}
    report = evaluate(
        artifacts, x, y, [Square(0.02, queries=200)], black_box=False, batch_size=16, **QUIET
    )
    found = report.to_dict()["artifacts"]
    for name in artifacts:
        accuracy = found[name]["robust_accuracy"]["Square-200"]
        assert accuracy == pytest.approx((radius > 0.02).mean(), abs=0.1)
        assert list(found[name]["sources"]["Square-200"]) == [name]
    assert list(found["file"]["queries"]) == ["Square-200"] and found["model"]["queries"] == {}
    assert "attacks only asked it for its answers" in report.table()


def test_black_box_attacks_do_not_run_where_gradients_are_good(inside):
    model, x, y, _ = inside(count=10)
    data = evaluate({"m": model}, x, y, [FGSM(0.02)], black_box=True, **QUIET).to_dict()
    assert [attack["name"] for attack in data["attacks"]] == ["FGSM"]
