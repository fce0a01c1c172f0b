"""Fewer bits for an adversarially trained network: file formats, codebooks, and which layers hurt.

python examples/quantize.py           # Fashion-MNIST, half an hour on one core
python examples/quantize.py --quick   # a few rows on little data, a minute

One small network is trained against PGD, then (1) written in every number format, (2) clustered
from every start, dense and 90% pruned, right after and fine-tuned, and (3) rounded and pruned one
layer at a time, with the most sensitive layer spared. Robust means right under PGD-20 on the
cross-entropy and on the margin both. A file has no gradients: it meets the examples made on its
twins. Rows in --output are not made again.

Of what was measured on 500 images, whose intervals reach 4 points to either side (the rest is in
docs/quantization.md):

                               bytes  clean %  robust %
float                      1,689,972     86.0      73.4
int8, representative         432,240     86.0      73.4
int8, trained                429,856     85.8      73.2
16 values, linear             61,924     85.0      66.6
16 values, kmeans++          173,897     84.8      71.2
"""

import argparse
import dataclasses
import functools
import itertools
import json
import os
import pathlib

# Clustering and quantization are TF-MOT's, which needs tf_keras.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import tensorflow as tf
from _results import folder_of

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.export import TFLiteModel

DATA = pathlib.Path(os.environ.get("KERAS_ROBUST_DATA", "../shared/data"))
EPS = 0.1
BATCH = 128
STARTS = ("linear", "kmeans++", "random", "density", "linear, per channel")


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much of everything.

    Attributes:
        source: a file in `DATA`, or "embedded".
        steps: training steps of the network, and of each stage's fine-tuning.
        images: of the test set, for all accuracies.
        files: the formats, all of them where it is empty.
        nets, counts, starts: what is clustered, to how many values a kernel, from where.
        changes: of `kr.compress.sensitivity`; the last one says which layer is spared.
        spared: so many of the clustered rows of the last table.
        limit: of the training images.
    """

    source: str = "fashion_mnist.npz"
    steps: tuple[int, int] = (2000, 100)
    images: int = 500
    files: tuple[str, ...] = ()
    nets: tuple[str, ...] = ("dense", "pruned 90%")
    counts: tuple[int, ...] = (16, 4)
    starts: tuple[str, ...] = STARTS
    changes: tuple[dict, ...] = ({"sparsity": 0.9}, {"bits": 4}, {"bits": 3}, {"bits": 2})
    spared: int = 5
    limit: int | None = None


QUICK = Plan(
    source="embedded",
    steps=(40, 8),
    images=100,
    files=("float", "int8", "int8, mse", "int8, trained"),
    nets=("pruned 90%",),
    counts=(8,),
    starts=("linear", "linear, per channel"),
    changes=({"bits": 2},),
    spared=2,
    limit=2000,
)


def main(arguments=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few rows on little data")
    parser.add_argument("--output", type=pathlib.Path, help="folder of results")
    options = parser.parse_args(arguments)
    lab = Lab(QUICK if options.quick else Plan(), folder_of(options, "quantize"))
    formats(lab)
    codebooks(lab)
    layers(lab)
    return lab.rows


def formats(lab) -> None:
    """The network in every format of a .tflite file."""
    rows = lab.keep("files", "all", lambda: files(lab))
    print(f"\nFiles\n{'':28}{'.tflite':>10}{'clean %':>9}{'robust %':>10}{'us':>6}")
    for name, row in rows.items():
        print(f"{name:28}{row['bytes']:10,}{percent(row)}{row['us']:6}", flush=True)


def files(lab) -> dict:
    """Writes them, and measures all at once: examples made on one model are tried on every file."""
    dense, quantize = lab.model("dense"), kr.compress.Quantize
    modes = {"float": {}, "float16": {}, "dynamic": {}}
    modes |= {mode: {"representative": lab.some} for mode in ("int8", "int16x8")}
    make = {mode: lambda mode=mode: (dense, {"mode": mode, **modes[mode]}) for mode in modes}
    for rule in ("mean", "percentile", "mse"):
        stage = quantize(calibration=rule)
        make[f"int8, {rule}"] = lambda stage=stage: (stage.apply(dense, lab.some), {})
    make["int8, trained"] = lambda: (lab.tuned("dense", quantize()), {})
    make["float, trained as long"] = lambda: (lab.longer(), {"mode": "float"})
    return lab.measure_files({name: make[name]() for name in lab.plan.files or make})


def codebooks(lab) -> None:
    """Every start of `Cluster`, right after and fine-tuned."""
    print(f"\nClusters\n{'':40}{'right after':>19}{'fine-tuned':>19}")
    print(f"{'':40}{'clean %':>9}{'robust %':>10}" + f"{'clean %':>9}{'robust %':>10}{'.krz':>10}")
    for net, count, start in itertools.product(lab.plan.nets, lab.plan.counts, lab.plan.starts):
        init, _, channels = start.partition(", ")
        stage = kr.compress.Cluster(count, init, per_channel=bool(channels))
        name = f"{net}, {count} values, {start}"
        row = lab.keep("clusters", name, lambda net=net, stage=stage: lab.clustered(net, stage))
        ends = percent(row["start"]) + percent(row["tuned"])
        print(f"{name:40}{ends}{row['tuned']['bytes']:10,}", flush=True)


def layers(lab) -> None:
    """Which layers hurt, and what sparing the worst one buys."""
    for change in lab.plan.changes:
        row = lab.keep("layers", str(change), lambda change=change: lab.sensitivity(change))
        found = kr.compress.Sensitivity(**row)
        print(f"\n{found}", flush=True)
    worst, *others = found.most_sensitive(len(found.layers))
    best, every = others[-1], dict.fromkeys([worst, *others], 4)
    rows = dict(lab.keep("spared", f"int8, {worst} float", lambda: spared_files(lab, worst)))
    clustered = {
        "4 values": every,
        f"4 values, {worst} 16": {**every, worst: 16},
        f"4 values, {best} 16": {**every, best: 16},
        f"4 values, {worst} float": dict.fromkeys(others, 4),
        f"4 values, {best} float": {name: 4 for name in every if name != best},
    }
    for title, clusters in itertools.islice(clustered.items(), lab.plan.spared):
        stage = kr.compress.Cluster(clusters, "kmeans++")
        rows[title] = lab.keep("spared", title, lambda s=stage: lab.packed(lab.tuned("dense", s)))
    print(f"\nSparing {worst} or {best}\n{'':32}{'bytes':>10}{'clean %':>9}{'robust %':>10}")
    for name, row in rows.items():
        print(f"{name:32}{row['bytes']:10,}{percent(row)}", flush=True)


def spared_files(lab, worst) -> dict:
    dense = lab.model("dense")
    how = {"mode": "int8", "representative": lab.some}
    stage = kr.compress.Quantize(float_layers=(worst,))
    return lab.measure_files(
        {
            f"int8, {worst} float": (dense, {**how, "float_layers": [worst]}),
            f"int8, trained, {worst} float": (lab.tuned("dense", stage), {}),
        }
    )


class Lab:
    """The data, the networks that all rows start from, and the rows, kept in a folder."""

    def __init__(self, plan, folder):
        self.plan, self.folder, self.models, self.probe = plan, folder, {}, None
        folder.mkdir(parents=True, exist_ok=True)
        data = self.load()
        self.x, self.y = kr.data.arrays(data.test, plan.images)
        self.some, _ = kr.data.arrays(data.train, 300)
        self.attacks = {
            "PGD-20": kr.attacks.PGD(EPS, steps=20),
            "PGD-20 on the margin": kr.attacks.PGD(EPS, steps=20, loss="margin"),
        }
        self.tries = [tf.function(attack) for attack in self.attacks.values()]
        self.kept = folder / "rows.json"
        self.rows = json.loads(self.kept.read_text()) if self.kept.exists() else {}

    def load(self):
        path = DATA / self.plan.source
        name = path if path.exists() else path.stem
        return kr.data.load(name, batch_size=BATCH, limit=self.plan.limit)

    def keep(self, table, name, make) -> dict:
        """What is kept under that name, made and written where it is not there."""
        rows = self.rows.setdefault(table, {})
        if name not in rows:
            rows[name] = make()
            # Beside and renamed: a stop in between leaves the old one.
            new = self.kept.with_suffix(".new")
            new.write_text(json.dumps(self.rows, indent=1))
            new.replace(self.kept)
        return rows[name]

    def model(self, name):
        """The network that rows are made from, as its .krz unpacks."""
        if name not in self.models:
            path = self.folder / f"{name.replace(' ', '_')}.krz"
            if not path.exists():
                # One threshold over all layers: the small first convolution keeps most weights.
                prune = kr.compress.Prune(0.9, scope="global")
                model = self.trained() if name == "dense" else self.tuned("dense", prune)
                kr.compress.pack(model, path)
            self.models[name] = kr.compress.unpack(path)
        return self.models[name]

    def trained(self):
        steps = self.plan.steps[0]
        model = kr.zoo.small_cnn(seed=0)
        ramp = kr.training.Ramp(steps=steps // 10)
        return self.fit(model, 2e-3, steps, eps_ramp=ramp, attack_dtype="bfloat16")

    def longer(self):
        """As many steps as "int8, trained" takes, in float."""
        model = kr.compress.unpack(self.folder / "dense.krz")
        return self.fit(model, kr.compress.Quantize.learning_rate, self.plan.steps[1])

    def fit(self, model, rate, steps, **how):
        keras.utils.set_random_seed(0)
        trainer = kr.AdversarialTraining(model, self.attack(), **how)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        trainer.compile(adam(rate, steps), loss)
        trainer.fit(self.batches(steps), verbose=0)
        return model

    def attack(self):
        """What is trained against."""
        return kr.attacks.PGD(EPS, steps=3, step_size=EPS / 2)

    def batches(self, steps):
        """So many training batches, the same ones for every row."""
        return self.load().train.repeat().take(steps)

    def tuned(self, net, stage):
        """A stage of a recipe, fine-tuned adversarially."""
        steps = self.plan.steps[1]
        trainer = functools.partial(kr.AdversarialTraining, attack=self.attack())
        return self.run(net, stage, steps, adam(stage.learning_rate, steps), trainer)

    def run(self, net, stage, steps, optimizer, fine_tune=None):
        result = kr.compress.Recipe([stage]).run(
            self.model(net),
            self.batches(steps),
            fine_tune=fine_tune,
            epochs=1,
            optimizer=optimizer,
            verbose=0,
        )
        return result.model

    def clustered(self, net, stage) -> dict:
        """Both ends of the fine-tuning: one step that goes nowhere, and all of them."""
        start = self.run(net, stage, 1, keras.optimizers.SGD(0.0))
        return {"start": self.packed(start), "tuned": self.packed(self.tuned(net, stage))}

    def packed(self, model) -> dict:
        """A float model, and the bytes of its packed file."""
        if self.probe is None:  # The attacks are traced once; all these models are alike.
            self.probe = kr.compress.unpack(self.folder / "dense.krz")
        self.probe.set_weights(model.get_weights())
        clean, robust = [], []
        for start in range(0, len(self.x), 250):
            x, y = (tf.constant(part[start : start + 250]) for part in (self.x, self.y))
            tried = [x, *(attack(self.probe, x, y, seed=start) for attack in self.tries)]
            right = [tf.argmax(self.probe(x), -1, y.dtype) == y for x in tried]
            clean.append(right[0])
            robust.append(tf.reduce_all(right, 0))
        size = kr.compress.pack(model, self.folder / "last.krz")
        return {"clean": share(clean), "robust": share(robust), "bytes": size}

    def measure_files(self, made) -> dict:
        """Writes and attacks the files of `made`, name -> (model, options of the export)."""
        rows, paths, dense = {}, {}, self.model("dense")
        for name, (model, how) in made.items():
            file = self.folder / f"{name.replace(', ', '-').replace(' ', '_')}.tflite"
            size = kr.export.tflite(model, file, check=self.x[:100], **how).bytes
            us = round(1000 * TFLiteModel(file, threads=1).latency_ms(self.x[:1]))
            rows[name], paths[name] = {"bytes": size, "us": us}, str(file)
        report = kr.evaluate(
            paths,
            self.x,
            self.y,
            self.attacks,
            # A quantized model's own gradients are none where it clips; those of `dense` are.
            twins={name: [dense] if m is dense else [m, dense] for name, (m, _) in made.items()},
            black_box=False,
            eps_sweep=(),
            latency_runs=1,
            progress=False,
        )
        for name, found in report.to_dict()["artifacts"].items():
            rows[name] |= {"clean": found["clean_accuracy"], "robust": found["worst_case"]}
        return rows

    def sensitivity(self, change) -> dict:
        attack = self.attacks["PGD-20 on the margin"]
        found = kr.compress.sensitivity(self.model("dense"), self.x, self.y, attack, **change)
        return dataclasses.asdict(found)


def share(parts) -> float:
    return float(tf.reduce_mean(tf.cast(tf.concat(parts, 0), "float32")))


def percent(row) -> str:
    return f"{100 * row['clean']:9.1f}{100 * row['robust']:10.1f}"


def adam(rate, steps):
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")  # Each row traces attacks of its own, which it warns of.
    main()
