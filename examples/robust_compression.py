"""Deep Compression of adversarially trained nets: the small file, and the robustness left in it.

    TF_USE_LEGACY_KERAS=1 python examples/robust_compression.py --quick   # a minute, little data
    TF_USE_LEGACY_KERAS=1 python examples/robust_compression.py           # all of MNIST

LeNet-300-100 and LeNet-5 are trained against PGD on MNIST, then pruned, clustered and packed by
`kr.compress.Recipe` with the shares and codebooks that the paper has for each layer, every stage
fine-tuned against the same attack. All numbers are of the model that the file unpacks to. Files of
--output are not made again. Measured for LeNet-300-100, linf 0.1, and LeNet-5, linf 0.2
(AutoAttack on 300 images; docs/packed.md):

                   bytes  smaller   clean  PGD-20  AutoAttack
trained        1,066,440     1.0x   97.81    83.3        82.2
P                139,867     7.6x   97.95    86.8        85.5
P+Q               22,075    48.3x   97.98    87.3        86.7
P further         85,059    12.5x   98.03    87.1        86.4
P+Q further       13,226    80.6x   98.00    87.5        86.8

trained        1,724,320     1.0x   98.95    82.3        79.7
P                243,612     7.1x   98.85    82.3        78.3
P+Q               39,523    43.6x   98.88    82.2        80.0
P further        146,033    11.8x   98.84    82.6        80.0
P+Q further       22,932    75.2x   98.79    83.2        81.3
"""

import argparse
import dataclasses
import json
import os
import pathlib

import numpy as np
import tensorflow as tf
from _results import folder_of

import keras_robust as kr
from keras_robust._keras import keras

DATA = pathlib.Path(os.environ.get("KERAS_ROBUST_DATA", "../shared/data"))


@dataclasses.dataclass(frozen=True)
class Plan:
    """How one net is trained and compressed.

    Attributes:
        build: makes the net.
        eps: radius, linf, that it is trained for and attacked with.
        zeros: share of zeros of each layer.
        clusters: different values of each layer.
        epochs: of the training, of pruning and of clustering.
        further: shares of zeros of another round on top of the first.
        autoattack: test images that AutoAttack sees, 0 for none; the other numbers are of more.
        steps: of PGD in training.
    """

    build: object
    eps: float
    zeros: dict
    clusters: dict
    epochs: tuple = (10, 8, 3)
    further: dict | None = None
    autoattack: int = 1000
    steps: int = 7


PLANS = {
    "LeNet-300-100": Plan(
        kr.zoo.lenet_300_100,
        eps=0.1,
        zeros={"dense1": 0.92, "dense2": 0.91, "logits": 0.74},
        clusters={"dense1": 64, "dense2": 64, "logits": 64},
        further={"dense1": 0.96, "dense2": 0.95, "logits": 0.74},
    ),
    "LeNet-5": Plan(
        kr.zoo.lenet5,
        eps=0.2,
        zeros={"conv1": 0.34, "conv2": 0.88, "dense1": 0.92, "logits": 0.81},
        clusters={"conv1": 128, "conv2": 128, "dense1": 32, "logits": 32},
        further={"conv1": 0.34, "conv2": 0.88, "dense1": 0.97, "logits": 0.81},
        autoattack=300,
    ),
}


def main(arguments=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="little data, short training")
    parser.add_argument("--net", choices=list(PLANS), help="only this one")
    parser.add_argument("--output", type=pathlib.Path, help="folder of results")
    options = parser.parse_args(arguments)
    folder = folder_of(options, "robust_compression", "net")
    data = mnist(2048, 200) if options.quick else mnist(None, 1000)
    rows = {}
    for name in [options.net] if options.net else PLANS:
        plan = PLANS[name]
        if options.quick:
            plan = dataclasses.replace(plan, epochs=(2, 1, 1), further=None, autoattack=0, steps=2)
        rows[name] = Net(name, plan, data, folder / name).rows()
        show(name, plan, rows[name])
    return rows


class Net:
    """The stages of one net, each kept as a packed file with the numbers of that file."""

    def __init__(self, name, plan, data, folder):
        self.name, self.plan, self.data, self.folder = name, plan, data, folder
        self.attack = kr.attacks.PGD(plan.eps, steps=plan.steps)
        folder.mkdir(parents=True, exist_ok=True)

    def rows(self) -> dict:
        """Stage -> its numbers, made where they are not there yet."""
        plan, (_, prune_epochs, cluster_epochs) = self.plan, self.plan.epochs
        made = {"trained": self.stage("trained", self.trained)}
        start = "trained"
        for round_, zeros in enumerate(filter(None, (plan.zeros, plan.further))):
            pruned, clustered = (f"{title}{' further' * round_}" for title in ("P", "P+Q"))
            stages = {
                pruned: (kr.compress.Prune(zeros, initial_sparsity=0.0), prune_epochs, start),
                clustered: (kr.compress.Cluster(plan.clusters), cluster_epochs, pruned),
            }
            for title, (stage, epochs, before) in stages.items():
                made[title] = self.stage(title, self.compressed, stage, epochs, before)
            start = pruned
        return made

    def stage(self, title, make, *arguments) -> dict:
        path, numbers = self.path(title), self.path(title).with_suffix(".json")
        if not path.exists():
            kr.compress.pack(make(*arguments), path)
        if not numbers.exists():
            numbers.write_text(json.dumps(self.measured(path)))
        row = json.loads(numbers.read_text())
        print(f"{self.name}, {title}: {row}", flush=True)
        return row

    def path(self, title):
        return self.folder / f"{title}.krz"

    def trained(self):
        model = self.plan.build()
        steps = self.plan.epochs[0] * int(self.data["train"].cardinality())
        trainer = kr.AdversarialTraining(
            model, self.attack, eps_ramp=kr.training.Ramp(max(1, steps // 3))
        )
        rate = keras.optimizers.schedules.CosineDecay(1e-3, steps, alpha=0.01)
        trainer.compile(keras.optimizers.Adam(rate))
        trainer.fit(self.data["train"], epochs=self.plan.epochs[0], verbose=2)
        return model

    def compressed(self, stage, epochs, before):
        model = kr.compress.unpack(self.path(before))
        result = kr.compress.Recipe([stage]).run(
            model,
            self.data["train"],
            fine_tune=lambda small: kr.AdversarialTraining(small, self.attack),
            epochs=epochs,
        )
        return result.model

    def measured(self, path) -> dict:
        """Bytes of the file, and the shares right of the model in it, in percent."""
        model, (x, y) = kr.compress.unpack(path), self.data["test"]
        eps, held = self.plan.eps, self.data["attacked"]
        row = {"bytes": path.stat().st_size, "clean": right(model, x, y), "AutoAttack": None}
        for name, attack, count in (
            ("PGD-20", kr.attacks.PGD(eps, steps=20), held),
            ("AutoAttack", kr.attacks.AutoAttack(eps), min(held, self.plan.autoattack)),
        ):
            if count:
                row[name] = right(model, attack(model, x[:count], y[:count]), y[:count])
        return row


def right(model, x, y) -> float:
    logits = model.predict(np.asarray(x), batch_size=500, verbose=0)
    return round(100 * float(np.mean(logits.argmax(-1) == y)), 2)


def show(name, plan, rows):
    """Size against float32, and what is right, stage by stage."""
    dense = 4 * plan.build().count_params()
    print(f"\n{name}, eps {plan.eps}: {dense:,} bytes in float32")
    print(f"{'':14}{'bytes':>10}{'smaller':>9}{'clean':>8}{'PGD-20':>8}{'AutoAttack':>12}")
    for title, row in rows.items():
        size = dense if title == "trained" else row["bytes"]
        print(
            f"{title:14}{size:10,}{dense / size:8.1f}x{row['clean']:8.2f}{row['PGD-20']:8.1f}"
            f"{row['AutoAttack'] or float('nan'):12.1f}"
        )


def mnist(limit, attacked):
    """Batches to train on, test images and labels, and how many of them are attacked."""
    with np.load(DATA / "mnist.npz") as file:
        images = {k: (v[..., None] / 255).astype("float32") for k, v in file.items() if "x_" in k}
        labels = {k: v.astype("int32") for k, v in file.items() if "y_" in k}
    train = tf.data.Dataset.from_tensor_slices(
        (images["x_train"][:limit], labels["y_train"][:limit])
    )
    train = train.cache().shuffle(60_000, seed=0).batch(128, drop_remainder=True)
    test = (images["x_test"][:limit], labels["y_test"][:limit])
    return {"train": train, "test": test, "attacked": attacked}


if __name__ == "__main__":
    main()
