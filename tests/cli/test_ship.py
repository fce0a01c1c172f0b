"""`keras-robust compress` and `export`: what the options make, and what is written."""

import json

import pytest

import keras_robust as kr
from keras_robust import compress as kc
from keras_robust._keras import LEGACY, keras
from keras_robust.attacks import PGD

TFMOT = pytest.mark.skipif(not LEGACY, reason="clusters and int8 need tf_keras")
SHAPES = ["--factorize", 0.6, "--neurons", 0.4]


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        pytest.param([], lambda: [kc.Prune(0.8), kc.Cluster(16), kc.Quantize("int8")], marks=TFMOT),
        pytest.param(
            ["--prune", 0.5, "--cluster", 8],
            lambda: [kc.Prune(0.5), kc.Cluster(8), kc.Quantize("int8")],
            marks=TFMOT,
        ),
        pytest.param(["--binarize"], lambda: [kc.Binarize(), kc.Quantize("int8")], marks=TFMOT),
        (["--prune", 0.5, "--cluster", 0, "--no-quantize"], lambda: [kc.Prune(0.5)]),
        (
            [*SHAPES, "--binarize", "--no-quantize"],
            lambda: [kc.Factorize(budget=0.6), kc.PruneNeurons(0.4), kc.Binarize()],
        ),
    ],
)
def test_the_stages_are_those_asked_for(call, archive, small, tmp_path, spied, options, stages):
    seen = spied(kc.Recipe, "run")
    files = ["--data", archive, "--model", small, "--out", tmp_path / "out"]
    _, _, errors = call("compress", *files, *options)
    assert "seen enough" in errors and list(seen[0][0][0].stages) == stages()


@pytest.mark.parametrize("given", [False, True])
def test_fine_tuning_is_by_the_attack_asked_for(
    call, archive, small, tmp_path, spied, seeds, given
):
    seen = spied(kc.Recipe, "run")
    options = ["--data", archive, "--model", small, "--out", tmp_path / "out"]
    options += ["--cluster", 0, "--no-quantize"]
    if given:
        options += ["--eps", 0.3, "--norm", "l2", "--steps", 2, "--step-size", 0.05]
        options += ["--seed", 3, "--epochs", 4]
    call("compress", *options)
    (_, model, _), settings = seen[0]
    trainer = settings["fine_tune"](model)
    asked = PGD(0.3, "l2", steps=2, step_size=0.05) if given else PGD(0.1, steps=5)
    assert trainer.attack == asked and trainer.model is model
    seed, epochs = (3, 4) if given else (0, 3)
    assert seeds == [seed] and trainer.seed == settings["seed"] == seed
    assert settings["epochs"] == epochs


def test_compress_prints_one_json_document(call, archive, small, tmp_path):
    out = tmp_path / "out"
    options = ["--binarize", "--no-quantize", "--epochs", 1, "--steps", 1]
    files = ["--data", archive, "--model", small, "--out", out]
    code, text, _ = call("compress", *files, *options, "--json")
    facts = json.loads(text)  # Which takes one document and nothing beside it.
    assert code == 0
    assert facts["files"] == {
        "binarized": str(out / "binarized.keras"),
        "tflite": str(out / "model.tflite"),
    }
    assert [stage["name"] for stage in facts["stages"]] == ["binarized"]


@pytest.mark.parametrize("mode", ["float", "float16", "dynamic", "int8", "int16x8"])
def test_a_file_is_of_the_format_asked_for(call, archive, small, tmp_path, mode):
    file = tmp_path / "small.tflite"
    files = ["--data", archive, "--model", small, "--out", file]
    code, text, errors = call("export", *files, "--format", mode, "--json")
    assert code == 0, errors
    assert json.loads(text)["mode"] == mode
    found = kr.export.describe(file)
    assert found["class_names"] == list(kr.data.load(archive).class_names)
    kinds = {"float16": "float16", "dynamic": "float32", "int8": "int8", "int16x8": "int8"}
    assert found["weights"][0]["dtype"] == kinds.get(mode, "float32")


@pytest.fixture
def clothes(tmp_path):
    """A model in a file that happens to take images like the embedded ones."""
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(10))
    model.save(tmp_path / "clothes.keras")
    return tmp_path / "clothes.keras"


@pytest.mark.parametrize(
    "command",
    ["compress --binarize --no-quantize", "export --format int8", "export --format int16x8"],
)
def test_images_that_go_into_a_file_are_not_guessed(call, clothes, tmp_path, command):
    out = tmp_path / "out"
    code, text, errors = call(*command.split(), "--model", clothes, "--out", out)
    assert code == 2 and text == "" and not out.exists()
    assert "--data must say which images --model" in errors and "say --data embedded" in errors


def test_class_names_that_go_into_a_file_are_not_guessed(call, clothes, tmp_path):
    for data, names in (([], None), (["--data", "embedded"], kr.data.load().class_names)):
        file = tmp_path / "clothes.tflite"
        files = ["--model", clothes, "--out", file, *data, "--limit", 300]
        code, _, errors = call("export", *files, "--format", "float")
        assert code == 0 and ("no class names are written" in errors) == (names is None)
        assert kr.export.describe(file)["class_names"] == (names and list(names))


def test_a_new_model_is_for_the_images_of_the_default(call, spied, tmp_path):
    seen = spied(kr.export, "tflite")
    call("export", "--model", "lenet5", "--limit", 300, "--out", tmp_path / "m.tflite")
    (model, _), settings = seen[0]
    assert model.input_shape == (None, 28, 28, 1) and len(settings["representative"]) == 300
    assert settings["class_names"] == kr.data.load().class_names
