"""Diagnosis and corruptions as parts of a report, with the parts' own work replaced."""

import numpy as np
import pytest

from keras_robust.attacks import FGSM, PGD
from keras_robust.evaluation import _corruptions, _diagnosis, evaluate

QUIET = {"progress": False, "latency_runs": 1, "eps_sweep": ()}
FINDING = {"check": "steps", "verdict": "ok", "numbers": {"10": 0.5}, "meaning": "It is <fine>."}


def test_diagnosis_is_of_the_last_single_attack(inside, monkeypatch, tmp_path):
    model, x, y, _ = inside(count=8)
    asked = []

    def diagnose(artifact, x, y, attack, seed, say, *, batch_size):
        asked.append((artifact.name, len(x), attack, seed))
        return [FINDING]

    monkeypatch.setattr(_diagnosis, "diagnose", diagnose)
    attacks = [FGSM(0.02), PGD(0.02, steps=2)]
    for _ in range(2):
        report = evaluate(
            {"m": model}, x, y, attacks, diagnose=True, seed=3, journal=tmp_path / "j", **QUIET
        )
    assert asked == [("m", 8, PGD(0.02, steps=2), 3)]  # the second time from the journal
    assert report.to_dict()["artifacts"]["m"]["diagnosis"] == [FINDING]
    assert "Honesty checks" in report.table() and "It is <fine>." in report.table()
    page = report.save(tmp_path / "report").read_text()
    assert "<h2>Honesty checks</h2>" in page and "It is &lt;fine&gt;." in page


def test_corruptions_run_one_by_one(blobs, cnn, monkeypatch, tmp_path):
    x, y = blobs(9)
    asked = []

    def corruption_errors(artifacts, x, y, names, seed, batch_size, say, *, bounds):
        asked.append((list(artifacts), names, seed, batch_size, bounds))
        errors = {names[0]: [0.1, 0.2, 0.3, 0.4, 0.5] if names == ["fog"] else [0.5] * 5}
        return {name: {"errors": errors, "mean_error": 0.0} for name in artifacts}

    monkeypatch.setattr(_corruptions, "corruption_errors", corruption_errors)
    monkeypatch.setattr(_corruptions, "check_corruptions", lambda x, names, bounds: list(names))
    report = evaluate(
        {"m": cnn()}, x, y, [FGSM(0.02)], corruptions=["fog", "snow"], batch_size=5, **QUIET
    )
    assert asked == [(["m"], [name], 0, 5, (0.0, 1.0)) for name in ("fog", "snow")]
    found = report.to_dict()["artifacts"]["m"]["corruptions"]
    assert found["mean_error"] == pytest.approx(0.4) and list(found["errors"]) == ["fog", "snow"]
    assert "corrupted %" in report.table() and "60.0" in report.table()
    assert "Common corruptions" in report.save(tmp_path).read_text()


def test_both_are_off_by_default_and_wrong_ones_are_refused(inside):
    model, x, y, _ = inside(count=8)
    found = evaluate({"m": model}, x, y, [FGSM(0.02)], **QUIET).to_dict()["artifacts"]["m"]
    assert "diagnosis" not in found and "corruptions" not in found
    for settings, error, message in (
        ({"diagnose": "yes"}, TypeError, "`diagnose` must be True or False"),
        ({"diagnose": True, "attacks": [FGSM(0.0)]}, ValueError, "`diagnose` needs an attack"),
        ({"corruptions": "fog"}, TypeError, "`corruptions` must be True or a list of names"),
        ({"corruptions": True}, ValueError, "`x`"),  # vectors are no images
    ):
        with pytest.raises(error, match=message):
            evaluate({"m": model}, x, y, **{"attacks": [FGSM(0.02)], **QUIET, **settings})


def test_the_real_ones_run(blobs, cnn):
    x, y = blobs(6)
    x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    artifacts = {"m": cnn(shape=(8, 8, 1))}
    report = evaluate(artifacts, x, y, [FGSM(0.05)], corruptions=["contrast"], **QUIET)
    (errors,) = report.to_dict()["artifacts"]["m"]["corruptions"]["errors"].values()
    assert len(errors) == 5 and all(0 <= error <= 1 for error in errors)
