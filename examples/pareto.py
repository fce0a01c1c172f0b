"""Bytes on disk against clean and robust accuracy: each stage of compression, and combinations.

python examples/pareto.py                        # both data sets, over an hour of one core
python examples/pareto.py --data fashion_mnist   # one of them
python examples/pareto.py --quick                # a few rows on little data, a minute

One adversarially trained network a data set; each row is made from the row that its name extends,
fine-tuned adversarially, and written as files: .tflite, and .krz where `kr.compress.pack` takes it.
What is measured is what comes out of the files: the model that the .krz unpacks to, or the .tflite
where the row is int8 or has no .krz. Rows in --output are not made again.

Of what was measured on Fashion-MNIST (500 images, linf 0.1; the rest is in docs/pareto.md):

                                       .tflite       .krz  clean %  robust %
dense                                1,689,972  1,413,098     85.8      76.0
int8                                   429,856    266,160     86.6      75.6
2 of 4, int8                           429,856    185,219     86.2      74.2
16 values                            1,689,972     62,900     86.0      56.6
pruned 90%, 16 values                1,689,972     32,396     84.2      70.8
pruned 95%, 16 values                1,689,972     19,792     84.2      67.2
half, pruned 80%, 16 values            426,868     15,678     80.2      62.6
factorized, pruned 80%, 16 values      424,052     15,770     84.6      67.8
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
from _pareto_rows import QUICK_ROWS, plans

import keras_robust as kr
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
        lasso: weight of the group lasso on filters and units.
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
    lasso: float = 0.006


TASKS = {
    "fashion_mnist": Task("Fashion-MNIST", "fashion_mnist", ("fashion_mnist.npz",), 0.1),
    "cifar10": Task(
        "CIFAR-10",
        "cifar10",
        ("cifar10.npz", "cifar10_subset.npz"),
        8 / 255,
        augmented=True,
        lasso=0.004,
    ),
}
QUICK = Task("Fashion-MNIST, a part", "embedded", (), 0.1, (40, 8), 100, 1, False, 20, limit=2000)


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
        self.some, self.labels = kr.data.arrays(data.train, 300)
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
        exported = kr.export.tflite(
            model,
            paths["tflite"],
            representative=self.some if mode == "int16x8" else None,
            mode=mode,
            check=self.x[:100],
        )
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
        """Prints the table with its fronts, and writes the numbers, the picture and table.md."""
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
        table = [f"| | {' | '.join(NAMES)} | front |", f"|---|{'--:|' * len(NAMES)}---|"]
        for name, row in sorted(self.rows.items(), key=lambda item: -item[1]["bytes"]):
            on = [key for key, names in fronts.items() if name in names]
            print(f"{line(name, row)}  {''.join(key[0] for key in on)}")
            table.append(f"| {' | '.join([name, *cells(row), ', '.join(on)])} |")
        (self.folder / "table.md").write_text("\n".join(table) + "\n")
        return results


NAMES, WIDTHS = (".tflite", ".krz", "clean %", "robust % (95%)", "us"), (11, 11, 9, 22, 6)
HEAD = " " * 36 + "".join(f"{name:>{width}}" for name, width in zip(NAMES, WIDTHS))


def cells(row) -> list[str]:
    low, high = (100 * end for end in row["robust_interval"])
    return [
        f"{row['tflite']:,}",
        f"{row['krz']:,}" if row["krz"] else "",
        f"{100 * row['clean']:.1f}",
        f"{100 * row['robust']:.1f} ({low:.1f} to {high:.1f})",
        f"{row['latency_us']}",
    ]


def line(name, row) -> str:
    return f"{name:36}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells(row), WIDTHS))


def attacks(task) -> dict:
    """What is tried on every row, all with the same seed and on the same images."""
    found = {"PGD-20": kr.attacks.PGD(task.eps, steps=20, restarts=task.restarts)}
    if task.margin:
        found["PGD-20 on the margin"] = kr.attacks.PGD(task.eps, steps=20, loss="margin")
    found["Square"] = kr.attacks.Square(task.eps, queries=task.queries)
    return found


def write_json(path, content) -> None:
    # Beside and renamed: a stop in between leaves the old one.
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content, indent=1))
    new.replace(path)


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")  # Each row traces attacks of its own, which it warns of.
    main()
