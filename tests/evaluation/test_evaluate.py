import json

import numpy as np
import pytest
import tensorflow as tf

from keras_robust._keras import LEGACY, keras
from keras_robust.attacks import FGSM, PGD
from keras_robust.evaluation import Report, evaluate
from keras_robust.evaluation._fingerprint import data_hash

QUIET = {"progress": False, "latency_runs": 1}


@pytest.mark.parametrize("eps", [0.005, 0.02, 0.05])
def test_linear_model_has_its_closed_form_accuracy(inside, eps):
    model, x, y, radius = inside()
    assert np.abs(radius - eps).min() > 1e-6
    report = evaluate({"m": model}, x, y, [FGSM(eps), PGD(eps, steps=5)], eps_sweep=(), **QUIET)
    found = report.to_dict()["artifacts"]["m"]
    expected = (radius > eps).mean()
    assert 0 < expected < 1
    assert found["clean_accuracy"] == 1.0
    assert found["robust_accuracy"] == {"FGSM": expected, "PGD-5": expected}
    assert found["worst_case"] == expected
    assert found["sources"]["FGSM"] == {"m": int((radius <= eps).sum())}


def test_every_kind_of_artifact_gives_the_same_numbers(inside, tflite_file, saved_model):
    model, x, y, radius = inside()
    layer = keras.layers.Dense(2)
    network = keras.Sequential([keras.Input((12,)), layer])
    layer.set_weights([model.weights, model.bias])
    artifacts = {
        "callable": model,
        "keras": network,
        "folder": saved_model(model, 12),
        "file": tflite_file(model, 12),
    }
    report = evaluate(artifacts, x, y, [FGSM(0.02)], eps_sweep=(), **QUIET)
    found = report.to_dict()["artifacts"]
    kinds = [a["kind"] for a in found.values()]
    assert kinds == ["callable", "keras", "saved_model", "tflite"]
    expected = (radius > 0.02).mean()
    assert {name: a["robust_accuracy"]["FGSM"] for name, a in found.items()} == pytest.approx(
        dict.fromkeys(artifacts, expected)
    )
    # The folder is attacked on itself, the file on all three others.
    assert list(found["folder"]["sources"]["FGSM"]) == ["folder"]
    assert list(found["file"]["sources"]["FGSM"]) == ["callable", "keras", "folder"]
    assert found["callable"]["bytes"] is None and found["keras"]["gzip_bytes"] > 0
    assert found["file"]["bytes"] == artifacts["file"].stat().st_size
    assert all(a["latency_ms"] > 0 for a in found.values())


def test_file_counts_the_worst_twin_of_each_image(tflite_file):
    def model(x):  # class 0 where both inputs are above 0.5
        least = tf.reduce_min(x, axis=-1, keepdims=True)
        return tf.concat([least - 0.5, 0.5 - least], -1)

    def along(axis):  # sees one input only, so that FGSM moves only that one
        return lambda x: tf.stack([x[:, axis] - 0.5, 0.5 - x[:, axis]], -1)

    x = np.array([[0.55, 0.9], [0.9, 0.55], [0.55, 0.55], [0.9, 0.9], [0.3, 0.9]], np.float32)
    y = np.zeros(5, int)
    report = evaluate(
        {"file": tflite_file(model, 2)},
        x,
        y,
        [FGSM(0.1)],
        twins={"file": {"first": along(0), "second": along(1)}},
        eps_sweep=[0, 0.1, 0.5],
        **QUIET,
    )
    found = report.to_dict()["artifacts"]["file"]
    assert found["clean_accuracy"] == 0.8
    assert found["robust_accuracy"]["FGSM"] == 0.2
    # The fifth image was wrong before: nobody broke it.
    assert found["sources"]["FGSM"] == {"first": 2, "second": 2}
    assert found["sweep"] == {"0": 0.8, "0.1": 0.2, "0.5": 0.0}
    notes = " ".join(report.to_dict()["notes"])
    assert 'on "first" and on "second"' in notes and "all of them" in notes


def test_misclassified_images_are_not_robust(inside, shift):
    model, x, y, _ = inside()
    wrong = np.array(y)
    wrong[:15] = 1 - wrong[:15]
    # The attack leaves everything as it is: clean and robust are the same images.
    report = evaluate({"m": model}, x, wrong, [shift(0.0)], **QUIET)
    found = report.to_dict()["artifacts"]["m"]
    assert found["clean_accuracy"] == found["robust_accuracy"]["shift"] == 0.75
    assert found["sources"] == {"shift": {"m": 0}}


def test_worst_case_is_per_image_over_attacks(shift):
    def model(x):  # class 1 within 0.2 of the middle
        distance = tf.abs(x[:, :1] - 0.5)
        return tf.concat([distance, tf.zeros_like(distance) + 0.2], -1)

    x, y = np.array([[0.4], [0.6], [0.5]], np.float32), [1, 1, 1]
    attacks = {"up": shift(0.15, direction=1.0), "down": shift(0.15)}
    report = evaluate({"m": model}, x, y, attacks, eps_sweep=(), black_box=False, **QUIET)
    found = report.to_dict()["artifacts"]["m"]
    assert found["robust_accuracy"] == pytest.approx({"up": 2 / 3, "down": 2 / 3})
    assert found["worst_case"] == pytest.approx(1 / 3)


def test_batch_size_changes_no_deterministic_number(inside):
    model, x, y, _ = inside()
    reports = [
        evaluate({"m": model}, x, y, [FGSM(0.02)], batch_size=size, **QUIET).to_dict()
        for size in (7, 60, 1000)
    ]
    for report in reports:
        report["artifacts"]["m"].pop("latency_ms")
    assert reports[0]["artifacts"] == reports[1]["artifacts"] == reports[2]["artifacts"]


def test_batches_have_one_shape_and_their_own_seeds(inside):
    model, x, y, _ = inside()
    calls = []

    class Spy:
        name, eps, norm = "spy", 0.1, "linf"

        def __call__(self, model, x, y, seed=0):
            calls.append((x.shape, y.shape, seed))
            return x

    evaluate({"m": model}, x, y, [Spy()], batch_size=25, seed=3, **QUIET)
    assert calls == [((25, 12), (25,), 3), ((25, 12), (25,), 4), ((25, 12), (25,), 5)]


def test_same_seed_gives_the_same_report(blobs, cnn):
    x, y = blobs(24)
    model = cnn()

    def run(seed):
        data = evaluate({"m": model}, x, y, [PGD(0.05, steps=3)], seed=seed, **QUIET).to_dict()
        data["artifacts"]["m"].pop("latency_ms")
        return data

    first, again, other = run(1), run(1), run(2)
    assert first == again
    # Another seed starts elsewhere: the examples differ, if not the counts.
    assert first["examples"] != other["examples"]


def test_default_sweep_scales_the_last_attack(inside):
    model, x, y, radius = inside()
    report = evaluate(
        {"m": model}, x, y, [FGSM(0.5), FGSM(0.02, norm="linf")][1:], sweep_images=30, **QUIET
    )
    data = report.to_dict()
    assert data["sweep"] == {"attack": "FGSM", "images": 30}
    curve = data["artifacts"]["m"]["sweep"]
    assert [float(eps) for eps in curve] == pytest.approx([0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06])
    for eps, accuracy in curve.items():
        assert accuracy == (radius[:30] > float(eps)).mean()


def test_fixed_step_size_scales_with_eps_in_the_sweep(inside):
    model, x, y, radius = inside()
    attack = PGD(0.01, steps=2, step_size=0.01, random_start=False)
    report = evaluate({"m": model}, x, y, [attack], eps_sweep=[0.05], **QUIET)
    # Two steps of 0.01 would not reach the corner of the larger ball.
    assert report.to_dict()["artifacts"]["m"]["sweep"]["0.05"] == (radius > 0.05).mean()


def test_sweep_can_be_turned_off(inside):
    model, x, y, _ = inside()
    data = evaluate({"m": model}, x, y, [FGSM(0.02)], eps_sweep=(), **QUIET).to_dict()
    assert data["sweep"] is None and data["artifacts"]["m"]["sweep"] == {}


def test_default_attacks_are_pgd_20_and_autoattack(inside):
    model, x, y, radius = inside(count=4)
    data = evaluate({"m": model}, x, y, eps_sweep=(), **QUIET).to_dict()
    assert [(a["name"], a["eps"]) for a in data["attacks"]] == [
        ("PGD-20", 8 / 255),
        ("AutoAttack", 8 / 255),
    ]
    assert data["artifacts"]["m"]["robust_accuracy"]["AutoAttack"] == (radius > 8 / 255).mean()


def test_one_hot_labels_and_tensors_are_taken(inside):
    model, x, y, radius = inside()
    data = evaluate(
        {"m": model}, tf.constant(x), np.eye(2)[y], [FGSM(0.02)], eps_sweep=(), **QUIET
    ).to_dict()
    assert data["artifacts"]["m"]["robust_accuracy"]["FGSM"] == (radius > 0.02).mean()


def test_report_is_ready_for_json_and_carries_its_context(inside):
    model, x, y, _ = inside()
    data = evaluate({"m": model}, x, y, [FGSM(0.02)], seed=7, title="T", **QUIET).to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["schema"] == 2 and data["seed"] == 7 and data["title"] == "T"
    assert data["data"] == {
        "images": 60,
        "shape": [12],
        "classes": 2,
        "class_names": ["0", "1"],
        "fingerprint": data_hash(x, y),
    }
    assert data["attacks"][0]["config"] == repr(FGSM(0.02))
    assert data["environment"]["tensorflow"] == tf.__version__
    assert data["environment"]["keras"]["version"] == keras.__version__
    low, high = data["artifacts"]["m"]["robust_interval"]["FGSM"]
    assert 0 <= low < data["artifacts"]["m"]["robust_accuracy"]["FGSM"] < high <= 1
    assert data["examples"] is None  # vectors are no images


def test_model_is_left_as_it_was(blobs, cnn):
    x, y = blobs(12)
    model = cnn(batch_norm=True)
    before = [np.array(weight) for weight in model.get_weights()]
    evaluate({"m": model}, x, y, [FGSM(0.1)], eps_sweep=(), **QUIET)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.skipif(not LEGACY, reason="TF-MOT needs tf_keras")
def test_wrapped_and_fake_quantized_models_and_their_int8_file(blobs, cnn, tmp_path):
    from keras_robust.compress._tfmot import tfmot as load
    from keras_robust.export import tflite

    tfmot = load()
    x, y = blobs(96)
    model = cnn()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss)
    model.fit(x, y, epochs=15, verbose=0)
    copies = [keras.models.clone_model(model) for _ in range(2)]
    for copy in copies:
        copy.set_weights(model.get_weights())
    pruned = tfmot.sparsity.keras.prune_low_magnitude(copies[0])
    quantized = tfmot.quantization.keras.quantize_model(copies[1])
    quantized.compile(keras.optimizers.Adam(0.005), loss)
    quantized.fit(x, y, epochs=3, verbose=0)
    tflite(quantized, tmp_path / "int8.tflite", check=x)
    artifacts = {
        "float": model,
        "pruned": pruned,
        "quantized": quantized,
        "int8": tmp_path / "int8.tflite",
    }
    report = evaluate(
        artifacts,
        x,
        y,
        [PGD(0.25, steps=5)],
        twins={"int8": [quantized, model]},
        eps_sweep=(),
        **QUIET,
    )
    found = report.to_dict()["artifacts"]
    sources = {"quantized", "quantized (straight-through)", "float"}
    assert set(found["int8"]["sources"]["PGD-5"]) == sources
    assert "HopSkipJump-1000 linf@int8" in found["int8"]["broken_by"]
    assert found["pruned"]["clean_accuracy"] == found["float"]["clean_accuracy"] > 0.9
    assert found["quantized"]["clean_accuracy"] == found["int8"]["clean_accuracy"] > 0.9
    # Straight-through gradients reach the input: the attack is as strong as on the float model.
    for name in ("float", "quantized", "int8"):
        assert found[name]["robust_accuracy"]["PGD-5"] < found[name]["clean_accuracy"] - 0.1, name
    assert found["pruned"]["size_of"].endswith("(TF-MOT wrappers not stripped)")
    assert found["int8"]["gzip_bytes"] < found["float"]["gzip_bytes"]


def test_twins_by_name_and_beside_white_box(inside):
    model, x, y, _ = inside()
    report = evaluate(
        {"m": model, "other": lambda x: -model(x)},
        x,
        y,
        [FGSM(0.02)],
        twins={"m": "other"},
        **QUIET,
    )
    assert list(report.to_dict()["artifacts"]["m"]["sources"]["FGSM"]) == ["m", "other"]
    assert '"m" was attacked white-box and with' in report.table()


def test_progress_lines_say_who_still_stands(inside, capsys):
    model, x, y, radius = inside()
    lines = []
    evaluate({"m": model}, x, y, [FGSM(0.02)], eps_sweep=(), progress=lines.append, latency_runs=1)
    standing = int((radius > 0.02).sum())
    assert lines[-1] == f"FGSM on m: 60/60 images, still standing: m {standing}"
    assert lines[0].startswith("m: ") and lines[0].endswith("ms an image")
    evaluate({"m": model}, x, y, [FGSM(0.02)], eps_sweep=(), latency_runs=1)
    assert "FGSM on m: 60/60" in capsys.readouterr().err


def test_result_is_a_report(inside):
    model, x, y, _ = inside()
    assert isinstance(evaluate({"m": model}, x, y, [FGSM(0.02)], **QUIET), Report)
