"""The benchmarks run, without the peers, and their tables are those of the results."""

import importlib.util
import json
import pathlib
import random
import sys

import numpy as np
import pytest
import tensorflow as tf

pytestmark = pytest.mark.once

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(FOLDER))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
        for other in ("_common", "_contests", "tables"):  # Plain names that are not ours alone.
            sys.modules.pop(other, None)
    return module


def measured(run, script, folder, *options):
    path = folder / "result.json"
    done = run(script, "--quick", "--no-peers", *options, "--output", path)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(path.read_text())
    assert set(result["left_out"]) >= {"ART", "Foolbox", "CleverHans"}
    assert result["environment"]["cpu"] and result["environment"]["cores"] >= 1
    assert str(folder) not in path.read_text()
    return result, done.stdout


@pytest.fixture(scope="module")
def train_step(run, tmp_path_factory):
    return measured(run, "train_step.py", tmp_path_factory.mktemp("train_step"))


def test_train_step_measures_its_parts_and_ours(train_step):
    result, printed = train_step
    groups = {row["group"] for row in result["rows"]}
    expected = {"PGD-2", "PGD-5", "TRADES, PGD-2", "PGD-3"}
    assert groups - {"clustered, PGD-2"} == expected
    rows = {row["name"]: row for row in result["rows"] if row["group"] == "PGD-2"}
    parts = [row["cpu_ms"]["median"] for name, row in rows.items() if name.startswith("part: ")]
    whole = rows["sum of the parts: 2 gradients to x, one training step"]
    assert whole["ratio"]["median"] == 1.0
    assert max(parts) < whole["cpu_ms"]["median"]
    ours = rows["AdversarialTraining, fit"]
    targets = {(t["group"], t["name"]): t for t in result["targets"]}
    found = targets["PGD-2", "AdversarialTraining, fit"]
    assert found["ratio"] == ours["ratio"] and found["limit"] == 1.03
    assert found["met"] == (ours["ratio"]["median"] <= 1.03)
    half = targets["PGD-2", "AdversarialTraining, fit, attack_dtype bfloat16"]
    assert half["limit"] == 0.62 and half["ratio"] == rows[half["name"]]["ratio"]
    assert ours["cpu_ms"]["median"] > max(parts)
    assert f"{ours['cpu_ms']['median']:.1f}" in printed


def test_train_step_compares_attacks_of_equal_strength(train_step):
    result, _ = train_step
    work = {row["name"]: row for row in result["same_work"]}
    by_hand, ours = work["by hand, one tf.function"], work["keras_robust, in training"]
    assert by_hand["cross_entropy"] > 2 * work["clean"]["cross_entropy"]
    assert ours["cross_entropy"] == pytest.approx(by_hand["cross_entropy"], rel=0.03)
    assert ours["largest_change"] <= 0.1 + 1e-6


def test_train_step_trains_everybody_on_the_same_images(train_step):
    result, printed = train_step
    rows = {row["name"]: row for row in result["same_images"]}
    assert {row["images"] for row in rows.values()} == {512}
    assert set(rows) >= {"natural training", "by hand, one tf.function", "AdversarialTraining, fit"}
    for row in rows.values():
        assert len(row["clean"]) == len(row["robust"]) == 1
        assert 0 <= row["robust"][0] <= row["clean"][0] <= 100 and row["clean"][0] > 15
    assert "Same images? 512 of them" in printed


def test_attacks_stay_in_ball_and_bounds_and_are_counted(run, tmp_path):
    result, printed = measured(run, "attacks.py", tmp_path, "--only", "fgsm", "pgd", "deepfool")
    inside = [row for row in result["rows"] if "robust_accuracy" in row]
    assert {row["norm"] for row in inside} == {"linf", "l1"}
    assert {row["attack"] for row in inside} == {"FGSM", "PGD-2", "PGD-2 x3"}
    assert {row["model"] for row in inside} == {"natural", "adversarially trained"}
    for row in inside:
        assert row["outside_ball"] == 0 and row["beyond_bounds"] == 0
        assert row["robust_accuracy"] <= result["clean_accuracy"][row["model"]]
        assert row["cpu_s"] > 0 and row["cpu_ms"] > 0
    nearest = [row for row in result["rows"] if "found" in row]
    assert {row["norm"] for row in nearest} == {"linf", "l2"}
    for row in nearest:
        assert row["found"] >= 50 and row["median"] > 0
    assert {"torchattacks", "AutoAttack's authors"} < set(result["left_out"])
    assert result["target"]["met"] is None  # No peer, no comparison.
    assert "| natural | linf | FGSM | keras_robust |" in printed
    assert "| natural | l2 | DeepFool | keras_robust |" in printed


def test_every_contest_has_an_attack_of_ours():
    """Also those that `--quick` makes small."""
    contests = load("_contests")
    for quick in (False, True):
        for contest in contests.contests(quick):
            for attack in contests.ours(contest).values():
                assert attack.eps == contest.eps or contest.kind == "spatial"
                assert not contest.norm or attack.norm == contest.norm
            assert contest.images % contest.batch == 0


def test_strength_is_ours_against_the_strongest_peer_inside_the_ball():
    attacks = load("attacks")
    common = {"model": "m", "norm": "l1", "attack": "a"}

    def row(name, accuracy, inside=None):
        inside = accuracy if inside is None else inside
        return {
            **common,
            "name": name,
            "robust_accuracy": accuracy,
            "robust_accuracy_inside": inside,
        }

    rows = [row("keras_robust", 40.0), row("keras_robust, keep_best=False", 10.0)]
    assert list(attacks.leads(rows)) == []
    rows += [row("ART", 20.0, inside=41.0), row("Foolbox", 39.5)]
    assert list(attacks.leads(rows)) == [("m", "l1", "a", 0.5)]


def test_distance_and_time_are_ours_over_the_best_peer_s():
    attacks = load("attacks")

    def row(name, median, ms):
        return {"model": "m", "norm": "l2", "attack": "a", "name": name} | {
            "median": median,
            "cpu_ms": ms,
        }

    rows = [row("keras_robust", 1.1, 4.0), row("ART", 1.0, 2.0), row("Foolbox", None, 8.0)]
    rows += [row("torchattacks", 2.0, 1.0)]  # Faster, and not on TensorFlow.
    assert list(attacks.distances(rows)) == [("m", "l2", "a", 1.1)]
    assert list(attacks.slower(rows)) == [("m", "l2", "a", "ART", 2.0)]


def test_examples_on_the_boundary_count_as_fooling():
    attacks = load("attacks")
    logits = tf.constant([[2.0, 1.0], [1.0, 2.0], [2.0, 2.0 - 1e-6]])
    margins = attacks._margins(lambda x, training: logits, None, np.array([0, 0, 0]))
    assert margins.tolist() == [1.0, -1.0, 0.0]


def test_every_variant_runs_once_a_round_and_own_clocks_count():
    common, calls = load("_common"), []
    variants = {
        "plain": lambda steps: calls.append(("plain", steps)),
        "own": lambda steps: calls.append(("own", steps)) or (0.5, 0.25),
    }
    found = common.alternate(variants, rounds=3, steps=4)
    assert calls[:2] == [("plain", 2), ("own", 2)]  # Traced outside the clock.
    rounds = [sorted(name for name, _ in calls[i : i + 2]) for i in (2, 4, 6)]
    assert rounds == [["own", "plain"]] * 3
    assert found["own"] == [(500.0, 250.0)] * 3
    assert common.ratios({"a": [(2, 0), (9, 0)], "b": [(1, 0), (3, 0)]}, "a", "b") == {
        "median": 2.5,
        "low": 2.0,
        "high": 3.0,
    }


def test_spread_gives_median_and_quartiles():
    values = list(range(1, 12))
    random.Random(0).shuffle(values)
    assert load("_common").spread(values) == {"median": 6, "low": 3, "high": 9}


def test_readme_holds_the_tables_of_the_results():
    text = (FOLDER / "README.md").read_text()
    assert load("tables").filled(text) == text


def test_results_name_the_machine_and_no_folder():
    paths = sorted((FOLDER / "results").glob("*.json"))
    assert paths
    for path in paths:
        result = json.loads(path.read_text())
        assert {"cpu", "cores", "date", "command", "tensorflow", "keras"} <= set(
            result["environment"]
        )
        assert not result["settings"]["quick"]
        assert "/" not in result["environment"]["command"].replace("benchmarks/", "")
