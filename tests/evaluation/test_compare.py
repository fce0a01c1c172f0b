import copy

import pytest
from scipy import stats

from keras_robust.attacks import FGSM
from keras_robust.evaluation import Report, evaluate
from keras_robust.evaluation._compare import mcnemar

pytestmark = pytest.mark.once

QUIET = {"progress": False, "latency_runs": 1, "eps_sweep": ()}


@pytest.fixture
def pair(inside):
    """A linear model before and after its margins were made narrower; three labels are wrong."""
    model, x, y, _ = inside()
    y[:3] = 1 - y[:3]
    before = evaluate({"m": model, "old": model}, x, y, [FGSM(0.02)], **QUIET)
    worse = {"m": lambda x: model(x) + [[0.5, 0.0]], "new": model}
    return before, evaluate(worse, x, y, [FGSM(0.02)], **QUIET)


@pytest.mark.parametrize("gained, lost", [(0, 0), (1, 9), (5, 5), (0, 6), (40, 12)])
def test_p_value_is_the_binomial_test(gained, lost):
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected)
    assert mcnemar(lost, gained) == mcnemar(gained, lost)


def test_same_images_are_compared_image_by_image(pair):
    before, after = pair
    comparison = before.compare(after)
    rows = {row["what"]: row for row in comparison.rows}
    assert {row["artifact"] for row in comparison.rows} == {"m"} and comparison.notes == ()
    old, new = (r.to_dict()["artifacts"]["m"] for r in pair)
    for what, good in (("clean", lambda o: o != -2), ("worst case", lambda o: o == -1)):
        changed = [
            (good(a), good(b)) for a, b in zip(old["outcomes"], new["outcomes"], strict=True)
        ]
        row = rows[what]
        assert row["gained"] == changed.count((False, True))
        assert row["lost"] == changed.count((True, False)) > 0
        assert row["p"] == mcnemar(row["gained"], row["lost"])
        assert f"+{row['gained']} -{row['lost']} images, McNemar p" in row["statement"]
    assert rows["clean"]["difference"] == new["clean_accuracy"] - old["clean_accuracy"] < 0
    assert "intervals" in rows["FGSM"]["statement"]
    assert "latency" in rows and "size" not in rows  # callables have none
    assert "McNemar" in str(comparison) and comparison.to_dict()["notes"] == []


def test_pairs_of_other_names(pair):
    before, after = pair
    rows = before.compare(after, pairs={"old": "new"}).rows
    assert {row["artifact"] for row in rows} == {"old -> new"}
    assert all(row["p"] == 1.0 for row in rows if "p" in row)
    for pairs, error, message in (
        ({"old": "m2"}, ValueError, "names 'm2', which is none of the artifacts: m, new"),
        ({"x": "m"}, ValueError, "names 'x', which is none of the artifacts: m, old"),
        (["m"], TypeError, "`pairs` must be a dict"),
    ):
        with pytest.raises(error, match=message):
            before.compare(after, pairs=pairs)
    with pytest.raises(TypeError, match="`other` must be a Report, got dict"):
        before.compare(after.to_dict())
    data = after.to_dict()
    data["artifacts"] = {"new": data["artifacts"]["new"]}
    with pytest.raises(ValueError, match="no artifact of the same name: m, old; and new"):
        before.compare(Report(data))


def test_what_does_not_compare_is_said(pair):
    before, after = pair
    data = after.to_dict()
    data["data"]["fingerprint"] = "other"
    data["attacks"][0]["config"] = "FGSM(eps=0.5)"
    data["environment"]["platform"] = "elsewhere"
    comparison = before.compare(Report(data))
    notes = " ".join(comparison.notes)
    for text in ("Not the same images", "Not the same attacks", "Not the same machine"):
        assert text in notes
    rows = {row["what"]: row for row in comparison.rows}
    assert "FGSM" not in rows and "p" not in rows["clean"]
    assert rows["clean"]["statement"] == "95% intervals apart"
    again = before.compare(Report({**before.to_dict(), "data": data["data"]})).rows
    assert "95% intervals overlap: may be chance" in {row["statement"] for row in again}


def test_sizes_are_compared_as_ratios(small_report):
    data = small_report().to_dict()
    smaller = copy.deepcopy(data)
    for artifact in smaller["artifacts"].values():
        artifact["bytes"] //= 4
    rows = Report(data).compare(Report(smaller)).rows
    size = next(row for row in rows if row["what"] == "size")
    assert size["statement"] == "0.25 times" and size["difference"] < 0
