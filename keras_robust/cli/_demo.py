"""The main job from nothing to a report: train, compress, ship, prove."""

import dataclasses
import pathlib
import tempfile
import time

import keras_robust as kr
from keras_robust._files import check_writable
from keras_robust._keras import keras, require_legacy
from keras_robust.cli._progress import EpochLines

EPS = 0.1


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much of everything: the full demo, or a quick look at its parts."""

    natural: int = 10
    robust: int = 15
    stages: tuple[int, int, int] = (6, 3, 3)
    limit: int | None = None
    images: int = 2000
    sweep: int = 500


QUICK = Budget(natural=2, robust=3, stages=(2, 1, 1), limit=3000, images=300, sweep=100)


def run_demo(folder, seed=0, quick=False, say=print):
    """Trains, compresses, ships and evaluates on the embedded images.

    Args:
        folder: where `report.json`, `report.html` and the shipped files go.
        seed: int, of everything random.
        quick: fewer images and epochs.
        say: function of a line of progress.

    Returns:
        The `Report`, the path of its page, and the seconds taken.
    """
    require_legacy("keras-robust demo")
    check_writable(pathlib.Path(folder) / "report.html", "--report")
    start = time.perf_counter()
    budget = QUICK if quick else Budget()

    def stage(number, text):
        say(f"[{number}/5 {time.perf_counter() - start:4.0f} s] {text}")

    data = kr.data.load("embedded", seed=seed, limit=budget.limit)
    x, y = kr.data.arrays(data.test, budget.images)
    validation = data.test.take(4)

    stage(1, f"training a small CNN naturally, {budget.natural} epochs")
    natural, natural_history = _train(data, validation, seed, budget.natural, 0.0, say)
    stage(1, f"training one adversarially, PGD-5 at eps {EPS} linf, {budget.robust} epochs")
    robust, robust_history = _train(data, validation, seed, budget.robust, EPS, say)

    stage(2, "pruning, clustering and quantizing it, trained adversarially at each stage")
    recipe = kr.compress.Recipe(
        [kr.compress.Prune(0.8), kr.compress.Cluster(16), kr.compress.Quantize("int8")]
    )
    result = recipe.run(
        robust,
        data.train,
        fine_tune=lambda m: kr.AdversarialTraining(m, _attack(EPS), seed=seed),
        epochs=budget.stages,
        seed=seed,
        verbose=0,
        on_stage=lambda done: say(
            f"  {done.name}: sparsity {done.sparsity:.2f}, {done.seconds:.0f} s"
        ),
    )

    stage(3, "exporting an int8 .tflite file and a SavedModel, each checked against its source")
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".shipping-") as beside:
        new, shipped = pathlib.Path(beside) / "new", folder / "shipped"
        new.mkdir()
        train_x, _ = kr.data.arrays(data.train, 500)
        check = x[:500]
        model, names = result.model, data.class_names
        path = new / "model.tflite"
        say(f"  {kr.export.tflite(model, path, representative=train_x, check=check)}")
        say(f"  {kr.export.serving(model, new / 'serving', class_names=names, check=check)}")
        if shipped.exists():
            shipped.rename(pathlib.Path(beside) / "old")
        new.rename(shipped)

    stage(4, f"attacking every artifact on {len(x):,} test images")
    models = {stage.name: stage.model for stage in result.stages}
    report = kr.evaluate(
        {
            "natural": natural,
            "robust": robust,
            "pruned": models["pruned"],
            "clustered": models["clustered"],
            "int8 .tflite": shipped / "model.tflite",
            "SavedModel": shipped / "serving",
        },
        x,
        y,
        attacks=[kr.attacks.FGSM(EPS), kr.attacks.PGD(EPS, steps=20)],
        # The file is tried on examples made white-box on its fake-quantized twin and on the
        # float models; the worst one counts. Fake quantization clips, and where it clips it
        # has no gradient: examples made on the clustered model find more than its own do.
        twins={
            "int8 .tflite": {
                "fake-quantized twin": models["quantized"],
                "clustered": models["clustered"],
                "robust": robust,
            },
            "SavedModel": models["clustered"],
        },
        # A few hundred queries of each image that still stands: thousands would take minutes.
        black_box=[kr.attacks.Square(EPS, queries=300)],
        sweep_images=budget.sweep,
        seed=seed,
        class_names=data.class_names,
        histories={"natural": natural_history, "robust": robust_history},
        progress=say,
        title="keras-robust demo: Fashion-MNIST subset",
    )
    stage(5, "writing the report")
    page = report.save(folder)
    return report, page, time.perf_counter() - start


def _attack(eps):
    return kr.attacks.PGD(eps=eps, steps=5, step_size=eps * 0.4)


def _train(data, validation, seed, epochs, eps, say):
    """A small CNN, trained at radius `eps`; at 0 that is natural training."""
    model = kr.zoo.small_cnn(seed=seed)
    steps = len(data.train)
    trainer = kr.AdversarialTraining(
        model,
        _attack(eps) if eps else kr.attacks.FGSM(eps=0.0),
        eps_ramp=kr.training.Ramp(steps=2 * steps),
        validation_attack=_attack(EPS),
        seed=seed,
    )
    rate = keras.optimizers.schedules.CosineDecay(2e-3, epochs * steps) if eps else 2e-3
    trainer.compile(keras.optimizers.Adam(rate), metrics=["accuracy"])
    history = trainer.fit(
        data.train,
        validation_data=validation,
        epochs=epochs,
        verbose=0,
        callbacks=[EpochLines(epochs, say)],
    )
    return model, history
