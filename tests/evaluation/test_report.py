import json

import pytest

from keras_robust.attacks import DeepFool, HopSkipJump, Square
from keras_robust.evaluation import Report, evaluate

pytestmark = pytest.mark.once


def test_saved_report_comes_back(small_report, tmp_path):
    report = small_report()
    page = report.save(tmp_path / "out" / "report")
    assert page == tmp_path / "out" / "report" / "report.html"
    assert sorted(p.name for p in page.parent.iterdir()) == ["report.html", "report.json"]
    for path in (page.parent, page.with_name("report.json"), str(page.parent)):
        assert Report.load(path).to_dict() == report.to_dict()
    # The page of a loaded report is the same, images and all.
    again = Report.load(page.parent).save(tmp_path / "again")
    assert again.read_text() == page.read_text()


@pytest.mark.parametrize("both", [True, False])
def test_a_report_whose_only_radii_are_of_added_attacks_is_saved(
    both, inside, tflite_file, tmp_path
):
    model, x, y, _ = inside(count=6)
    path = tflite_file(model, 12)
    artifacts = {"model": model, "file": path} if both else {"file": path}
    added = [Square(0.1, queries=5), HopSkipJump(0.1, "linf", queries=50)]
    settings = {"twins": {"file": model}, "progress": False, "latency_runs": 1}
    report = evaluate(artifacts, x, y, [DeepFool()], black_box=added[: 1 + both], **settings)
    page = report.save(tmp_path / "r").read_text(encoding="utf-8")
    assert "Square" in page and ("HopSkipJump" in page) == both


def test_to_dict_is_a_copy(small_report):
    report = small_report()
    report.to_dict()["artifacts"].clear()
    assert list(report.to_dict()["artifacts"])[0] == "a"
    assert repr(report).startswith("<Report 'Robustness report': a, ")


def test_failure_leaves_the_old_report_whole(small_report, tmp_path):
    report = small_report()
    page = report.save(tmp_path)
    before = page.read_text(), page.with_name("report.json").read_text()
    broken = Report({**report.to_dict(), "seed": float("nan")})
    with pytest.raises(ValueError, match="JSON compliant"):
        broken.save(tmp_path)
    assert (page.read_text(), page.with_name("report.json").read_text()) == before
    assert len(list(tmp_path.iterdir())) == 2


def test_saving_into_a_file_is_refused(small_report, tmp_path):
    (tmp_path / "f").write_text("mine")
    with pytest.raises(ValueError, match="`folder` is .* which is a file"):
        small_report().save(tmp_path / "f")
    assert (tmp_path / "f").read_text() == "mine"


def test_what_is_no_report_is_refused(small_report, tmp_path):
    with pytest.raises(ValueError, match="Give the folder that Report.save wrote"):
        Report.load(tmp_path)
    (tmp_path / "report.json").write_text("{broken")
    with pytest.raises(ValueError, match="is not a report"):
        Report.load(tmp_path)
    (tmp_path / "report.json").write_text(json.dumps([1]))
    with pytest.raises(ValueError, match="must be the dict of a report"):
        Report.load(tmp_path)
    with pytest.raises(ValueError, match="has schema 1, but this version .* reads schema 2"):
        Report({**small_report().to_dict(), "schema": 1})
