"""The example runs, and its tables hold together."""

import pytest

from keras_robust._keras import LEGACY


@pytest.mark.skipif(LEGACY, reason="takes more than a minute: once is enough")
def test_quick(load_example, data_folder, tmp_path, capsys):
    pytest.importorskip("sklearn")
    example = load_example("low_rank_layer", "cifar10_subset.npz")
    arguments = ["--quick", "--data", str(data_folder), "--output", str(tmp_path), "--images", "20"]
    made = example.main(arguments)

    models = made["representations"]["models"]
    assert list(models) == ["N-LR", "1-LR", "2-LR"]
    assert all(0 < found["variance_at_10"] <= 1 for found in models.values())
    for found in made["cut"].values():
        assert found["cut"]["parameters"] < found["whole"]["parameters"]
        assert found["cut"]["bytes"] < found["whole"]["bytes"]
        assert max(factor for *_, factor, _ in found["files"]) > 400
    for found in made["robustness"]["artifacts"].values():
        assert found["robust_accuracy"]["PGD-7 8/255"] <= found["clean_accuracy"]
    printed = capsys.readouterr().out
    assert "Probe accuracy (%) by dimensions" in printed and "DeepFool, median l2" in printed
    figures = {"variance", "probes", "eps", "stability", "classes_N-LR", "classes_2-LR"}
    assert figures <= {p.stem for p in tmp_path.glob("*.png")}

    # What is on disk is not trained again.
    kept = example.trained(tmp_path / "1-LR.keras", None, None, None, None)
    assert kept.get_layer("low_rank_pool").rank == 10
    assert (tmp_path / "reports" / "1-LR" / "report.html").exists()
