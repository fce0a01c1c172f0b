import pytest

from keras_robust.evaluation._table import WIDTH, kilobytes, milliseconds, radius

pytestmark = pytest.mark.once


def test_table_holds_the_numbers_with_units(small_report):
    report = small_report()
    artifact = report.to_dict()["artifacts"]["a"]
    lines = str(report).splitlines()
    head = next(line for line in lines if line.startswith("artifact"))
    row = next(line for line in lines if line.startswith("a "))
    for name in ("clean %", "FGSM %", "PGD-2 %", "worst %", "size KB", "gzip KB", "ms/image"):
        assert name in head
    assert f"{100 * artifact['clean_accuracy']:.1f}" in row
    assert f"{artifact['bytes'] / 1000:.1f}" in row


def test_table_is_broken_into_blocks_that_fit(small_report):
    from keras_robust.evaluation import Report

    data = small_report().to_dict()
    names = [f"a rather long attack {i}" for i in range(9)]
    data["attacks"] = [{**data["attacks"][0], "name": name} for name in names]
    for artifact in data["artifacts"].values():
        artifact["robust_accuracy"] = dict.fromkeys(names, 0.5)
        artifact["robust_interval"] = dict.fromkeys(names, [0.4, 0.6])
    text = Report(data).table()
    blocks = [line for line in text.splitlines() if line.startswith("artifact")]
    assert len(blocks) > 1
    rows = [line for line in text.splitlines()[2:] if line]
    assert max(map(len, rows)) <= WIDTH


def test_numbers_are_written_as_people_do():
    assert kilobytes(1234567) == "1,234.6" and kilobytes(None) == "-"
    assert radius(8 / 255) == "8/255" and radius(0.1) == "0.1" and radius(0) == "0"
    assert milliseconds(12.345) == "12.35" and milliseconds(0.00312) == "0.0031"
