"""Bytes on disk against clean and robust accuracy: each stage of compression, and combinations.

python examples/pareto.py                        # both data sets, half an hour on one core
python examples/pareto.py --data fashion_mnist   # one of them
python examples/pareto.py --quick                # a few rows on little data, a minute

One adversarially trained network a data set; each row is made from the row that its name extends,
fine-tuned adversarially, and written as files: .tflite, and .krz where `kr.compress.pack` takes it.
What is measured is what comes out of the files: the model that the .krz unpacks to, or the .tflite
where the row is int8 or has no .krz. Rows in --output are not made again.

Of what was measured on Fashion-MNIST (500 images, linf 0.1; the rest is in docs/pareto.md):

                                       .tflite       .krz  clean %  robust %
dense                                1,689,972  1,413,238     86.0      77.0
int8                                   429,856    265,225     86.6      76.8
16 values                            1,689,972     64,345     85.6      56.0
pruned 90%, 16 values                1,689,972     32,604     83.8      71.0
pruned 95%, 16 values                1,689,972     19,820     83.8      67.0
half, pruned 80%, 16 values            426,868     15,504     79.2      64.8
factorized, pruned 80%, 16 values      424,052     15,465     83.2      67.2
"""

import argparse
import dataclasses
import json
import os
import pathlib
import time

# Clustering and quantization are TF-MOT's, which needs tf_keras.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.evaluation import pareto_front, size_plot
from keras_robust.export import TFLiteModel

DATA = pathlib.Path(os.environ.get("KERAS_ROBUST_DATA", "../shared/data"))
BATCH = 128


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set and how much of everything.

    Attributes:
        name: of tensorflow-datasets, where none of the files is in `DATA`; or "embedded".
        sources: files in `DATA`, the first that is there.
        eps: radius of the attacks in linf.
        steps: training steps of the first network, and of each stage's fine-tuning.
        images: of the test set, for all accuracies.
        augmented: training images are moved and mirrored.
        limit: of the training images.
    """

    title: str
    name: str
    sources: tuple[str, ...]
    eps: float
    steps: tuple[int, int] = (3000, 160)
    images: int = 500
    restarts: int = 2
    margin: bool = True
    queries: int = 300
    augmented: bool = False
    limit: int | None = None


TASKS = {
    "fashion_mnist": Task("Fashion-MNIST", "fashion_mnist", ("fashion_mnist.npz",), 0.1),
    "cifar10": Task(
        "CIFAR-10", "cifar10", ("cifar10.npz", "cifar10_subset.npz"), 8 / 255, augmented=True
    ),
}
QUICK = Task("Fashion-MNIST, a part", "embedded", (), 0.1, (40, 8), 100, 1, False, 20, limit=2000)
QUICK_ROWS = ("dense", "float16", "pruned 90%", "pruned 90%, 16 values")


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a row is made: of the model of `parent`, by `make(world, model)`.

    `mode` is the .tflite file's, for rows that only such a file has.
    """

    parent: str | None
    make: object
    mode: str | None = None


def plans() -> dict:
    stages = kr.compress

    def prune(sparsity):
        # One threshold over all layers: the small first convolution keeps most of its weights.
        return stages.Prune(sparsity, scope="global")

    cluster, int8 = stages.Cluster, stages.Quantize("int8")
    kept = stages.Quantize("int8", preserve=("sparsity", "clusters"))
    return {
        "dense": Plan(None, trained),
        "float16": Plan("dense", same, "float16"),
        "dynamic range": Plan("dense", same, "dynamic"),
        "int8 after training": Plan("dense", rounded),
        "int8": stage("dense", int8),
        "pruned 80%": stage("dense", prune(0.8)),
        "pruned 90%": stage("dense", prune(0.9)),
        "pruned 95%": stage("dense", prune(0.95)),
        "16 values": stage("dense", cluster(16)),
        "pruned 90%, 16 values": stage("pruned 90%", cluster(16)),
        "pruned 90%, 16 values, int8": stage("pruned 90%, 16 values", kept),
        "pruned 95%, 16 values": stage("pruned 95%", cluster(16)),
        "half the units": stage("dense", stages.PruneNeurons(0.5)),
        "half, pruned 80%, 16 values": stage("half the units", prune(0.8), cluster(16)),
        "student": Plan("dense", student),
        "student, pruned 60%, 16 values": stage("student", prune(0.6), cluster(16)),
        "factorized": stage("dense", stages.Factorize(budget=0.25)),
        "binary": Plan("dense", binary),
        "half, int8": stage("half the units", int8),
        "student, int8": stage("student", int8),
        "factorized, pruned 80%, 16 values": stage("factorized", prune(0.8), cluster(16)),
        "4 values": stage("dense", cluster(4)),
        "separated": stage("dense", stages.Separate()),
    }


def main(arguments=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", choices=list(TASKS), help="only this one")
    parser.add_argument("--quick", action="store_true", help="a few rows on little data")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("pareto"))
    options = parser.parse_args(arguments)
    tasks = {name: TASKS[name] for name in ([options.data] if options.data else TASKS)}
    if options.quick:
        tasks = {"quick": QUICK}
    found = {}
    for name, task in tasks.items():
        world = World(task, options.output / name)
        print(f"\n{task.title}\n{HEAD}", flush=True)
        for row, plan in plans().items():
            if not options.quick or row in QUICK_ROWS:
                world.run(row, plan)
        found[name] = world.finish()
    return found


class World:
    """One data set: its images, its rows, and the folder where they are kept."""

    def __init__(self, task, folder):
        self.task, self.folder, self.models = task, folder, {}
        folder.mkdir(parents=True, exist_ok=True)
        data = self.load()
        self.shape, self.seen = data.input_shape, len(data.train) * BATCH
        self.x, self.y = kr.data.arrays(data.test, task.images)
        self.some, _ = kr.data.arrays(data.train, 300)
        self.kept = folder / "rows.json"
        self.rows = json.loads(self.kept.read_text()) if self.kept.exists() else {}

    def load(self):
        here = [DATA / name for name in self.task.sources if (DATA / name).exists()]
        source = here[0] if here else self.task.name
        return kr.data.load(source, batch_size=BATCH, limit=self.task.limit)

    def batches(self, steps):
        """So many training batches, the same ones for every row."""
        batches = self.load().train.repeat().take(steps)
        return kr.data.augment(batches, flip=True, shift=2) if self.task.augmented else batches

    def attack(self):
        """What is trained against."""
        return kr.attacks.PGD(self.task.eps, steps=3, step_size=self.task.eps / 2)

    def paths(self, name) -> dict:
        file = self.folder / name.replace(", ", "-").replace(" ", "_")
        return {kind: file.with_name(f"{file.name}.{kind}") for kind in ("tflite", "krz")}

    def model(self, name):
        """What the .krz of a row unpacks to."""
        if name not in self.models:
            self.models[name] = kr.compress.unpack(self.paths(name)["krz"])
        return self.models[name]

    def run(self, name, plan):
        """Makes, writes and measures one row, unless its files are there."""
        if name not in self.rows or not self.has_files(name):
            start = time.process_time()
            made = plan.make(self, self.model(plan.parent) if plan.parent else None)
            row = {"parent": plan.parent, "made_s": round(time.process_time() - start, 1)}
            row |= self.write(name, made, plan.mode)
            row |= self.measure(name, row)
            row["cpu_s"] = round(time.process_time() - start, 1)
            self.rows[name] = row
            write_json(self.kept, self.rows)
        print(line(name, self.rows[name]), flush=True)

    def has_files(self, name) -> bool:
        sizes = {path: self.rows[name][kind] for kind, path in self.paths(name).items()}
        wanted = {path: size for path, size in sizes.items() if size}
        return all(path.exists() and path.stat().st_size == wanted[path] for path in wanted)

    def write(self, name, model, mode) -> dict:
        """The row's files and their bytes; the .tflite is of the model that the .krz unpacks to."""
        paths, sizes = self.paths(name), {"krz": None}
        if mode is None:
            sizes["krz"] = kr.compress.pack(model, paths["krz"])
            self.models.pop(name, None)
            model = self.model(name)
        exported = kr.export.tflite(model, paths["tflite"], mode=mode, check=self.x[:100])
        sizes["tflite"] = exported.bytes
        kind = min((kind for kind in sizes if sizes[kind]), key=sizes.get)
        return sizes | {"mode": exported.mode, "bytes": sizes[kind], "group": f".{kind}"}

    def measure(self, name, row) -> dict:
        """Accuracies of the unpacked model, or of the .tflite file where that one computes else."""
        file = self.paths(name)["tflite"]
        if row["mode"] == "float":
            artifact, twins = self.model(name), {}
        else:
            # A file has no gradients. Its fake-quantized model has, but none where it clips; the
            # models before it do.
            artifact = file
            twins = {other: self.model(other) for other in ("dense", row["parent"])}
            if row["krz"]:
                twins["itself, with gradients"] = self.model(name)
        found = kr.evaluate(
            {name: artifact},
            self.x,
            self.y,
            attacks(self.task),
            twins={name: twins} if twins else None,
            black_box=False,
            eps_sweep=(),
            latency_runs=1,
            progress=False,
        ).to_dict()["artifacts"][name]
        self.models = {kept: model for kept, model in self.models.items() if kept == "dense"}
        return {
            "clean": found["clean_accuracy"],
            "clean_interval": found["clean_interval"],
            "robust": found["worst_case"],
            "robust_interval": found["worst_case_interval"],
            "attacks": found["robust_accuracy"],
            "latency_us": round(1000 * TFLiteModel(file, threads=1).latency_ms(self.x[:1])),
        }

    def finish(self) -> dict:
        """Prints the table with its fronts, and writes the numbers and the picture."""
        fronts = {key: pareto_front(self.rows, key) for key in ("clean", "robust")}
        task = self.task
        results = {
            "title": task.title,
            "eps": task.eps,
            "training_images": self.seen,
            "images": len(self.x),
            "attacks": {name: repr(attack) for name, attack in attacks(task).items()},
            "rows": self.rows,
            "fronts": fronts,
        }
        write_json(self.folder / "results.json", results)
        title = f"{task.title}, {len(self.x)} images, linf {task.eps:.3g}"
        size_plot(self.rows, self.folder / "pareto.png", title)
        print(f"\n{title}, {self.seen:,} training images; c, r: on the clean, robust front")
        print(HEAD)
        for name, row in sorted(self.rows.items(), key=lambda item: -item[1]["bytes"]):
            marks = "".join(key[0] if name in names else " " for key, names in fronts.items())
            print(f"{line(name, row)}  {marks}")
        return results


HEAD = (
    f"{'':36}{'.tflite':>10}{'.krz':>11}{'on disk':>11}{'clean %':>9}{'robust %':>10}"
    f"{'95%':>13}{'us':>6}"
)


def line(name, row) -> str:
    krz = f"{row['krz']:,}" if row["krz"] else ""
    low, high = (100 * end for end in row["robust_interval"])
    return (
        f"{name:36}{row['tflite']:10,}{krz:>11}{row['bytes']:11,}{100 * row['clean']:9.1f}"
        f"{100 * row['robust']:10.1f}{f'{low:.1f}-{high:.1f}':>13}{row['latency_us']:6}"
    )


def attacks(task) -> dict:
    """What is tried on every row, all with the same seed and on the same images."""
    found = {"PGD-20": kr.attacks.PGD(task.eps, steps=20, restarts=task.restarts)}
    if task.margin:
        found["PGD-20 on the margin"] = kr.attacks.PGD(task.eps, steps=20, loss="margin")
    found["Square"] = kr.attacks.Square(task.eps, queries=task.queries)
    return found


def stage(parent, *stages) -> Plan:
    """Stages of a recipe, each fine-tuned adversarially."""

    def make(world, model):
        steps = world.task.steps[1]
        for one in stages:
            result = kr.compress.Recipe([one]).run(
                model,
                world.batches(steps),
                fine_tune=lambda m: kr.AdversarialTraining(m, world.attack()),
                epochs=1,
                optimizer=adam(one.learning_rate, steps),
                verbose=0,
            )
            model = result.model
        return model

    return Plan(parent, make)


def same(world, model):
    return model


def rounded(world, model):
    return kr.compress.Quantize("int8").apply(model, world.some)


def trained(world, _):
    model = kr.zoo.small_cnn(world.shape, seed=0)
    steps = world.task.steps[0]
    ramp = kr.training.Ramp(steps=steps // 10)
    trainer = kr.AdversarialTraining(model, world.attack(), eps_ramp=ramp, attack_dtype="bfloat16")
    return fit(trainer, model, world, 2e-3, steps)


def binary(world, model):
    """Signs need more steps than a stage."""
    signs = kr.compress.binarize(model)
    trainer = kr.AdversarialTraining(signs, world.attack())
    fit(trainer, signs, world, 2e-3, world.task.steps[0] // 5)
    return kr.compress.freeze_binary(signs)


def student(world, teacher):
    """A network of some 25 thousand weights that learns from the dense one, attacked itself."""
    layers = keras.layers
    model = keras.Sequential([keras.Input(world.shape), layers.Rescaling(2.0, -1.0)])
    for number, filters in enumerate((12, 24)):
        start = keras.initializers.GlorotUniform(seed=number)
        model.add(layers.Conv2D(filters, 3, 2, "same", activation="relu", kernel_initializer=start))
    model.add(layers.Flatten())
    for number, (units, activation) in enumerate(((16, "relu"), (10, None))):
        start = keras.initializers.GlorotUniform(seed=2 + number)
        model.add(layers.Dense(units, activation, kernel_initializer=start))
    trainer = kr.Distillation(model, teacher, 2.0, 0.9, world.attack(), method="rslad")
    return fit(trainer, model, world, 2e-3, world.task.steps[0] // 3)


def fit(trainer, model, world, rate, steps):
    keras.utils.set_random_seed(0)
    trainer.compile(adam(rate, steps), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    trainer.fit(world.batches(steps), verbose=0)
    return model


def adam(rate, steps):
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))


def write_json(path, content) -> None:
    # Beside and renamed: a stop in between leaves the old one.
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content, indent=1))
    new.replace(path)


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")  # Each row traces attacks of its own, which it warns of.
    main()
