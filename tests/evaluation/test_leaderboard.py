import dataclasses

import pytest

from keras_robust.attacks import FGSM
from keras_robust.evaluation import evaluate
from keras_robust.evaluation._leaderboard import leaderboard, summary_lines

pytestmark = pytest.mark.once


def attack(name, type, kind="ball", added=False, **settings):
    return {"name": name, "type": type, "kind": kind, "added": added, **settings}


def artifact(clean, robust, worst, size=None):
    return {
        "clean_accuracy": clean,
        "robust_accuracy": robust,
        "worst_case": worst,
        "bytes": size,
    }


ATTACKS = [
    attack("aa", "AutoAttack", eps=8 / 255, norm="linf"),
    attack("FGSM", "FGSM", eps=0.5, norm="l2"),
    attack("noise", "Noise", kind="control", eps=None, norm="l2"),
]


def test_entries_are_ranked_and_in_percent():
    artifacts = {
        "weak": artifact(0.95, {"aa": 0.1, "FGSM": 0.2}, 0.09, 2_000),
        "strong": artifact(0.8514, {"aa": 0.5374, "FGSM": 0.6}, 0.5374),
    }
    entries = leaderboard(artifacts, ATTACKS, 1000)
    assert entries[0] == {
        "name": "strong",
        "eps": "8/255",
        "threat_model": "Linf",
        "clean_acc": "85.1",
        "autoattack_acc": "53.7",
        "external": "53.7",
        "images": 1000,
        "bytes": None,
    }
    assert entries[1]["external"] == "9.0"
    assert summary_lines(entries).splitlines() == [
        "name    clean %  AutoAttack %  worst %    eps  norm   KB",
        "strong     85.1          53.7     53.7  8/255  Linf    -",
        "weak       95.0          10.0      9.0  8/255  Linf  2.0",
    ]


def test_without_autoattack_the_last_ball_is_the_threat_model():
    (entry,) = leaderboard({"m": artifact(0.9, {}, 0.5)}, ATTACKS[1:], 10)
    assert (entry["autoattack_acc"], entry["eps"], entry["threat_model"]) == (None, "0.5", "L2")
    (entry,) = leaderboard({"m": artifact(0.9, {}, None)}, ATTACKS[2:], 10)
    assert (entry["external"], entry["eps"], entry["threat_model"]) == (None, None, None)
    assert summary_lines([entry]).splitlines()[1].split() == ["m", "90.0", "-", "-", "-", "-", "-"]


def test_report_has_a_summary(inside):
    model, x, y, radius = inside()

    @dataclasses.dataclass(frozen=True)
    class AutoAttack(FGSM):
        pass

    report = evaluate({"m": model}, x, y, [AutoAttack(0.02)], progress=False, latency_runs=1)
    (line,) = report.summary().splitlines()[1:]
    share = f"{100 * (radius > 0.02).mean():.1f}"
    assert line.split() == ["m", "100.0", share, share, "0.02", "Linf", "-"]
    assert report.to_dict()["leaderboard"][0]["autoattack_acc"] == share
