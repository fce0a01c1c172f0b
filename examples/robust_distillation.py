"""Robust distillation: what a small network gains from a robust teacher, in the same steps.

    python examples/robust_distillation.py --quick   # a few steps each, about a minute
    python examples/robust_distillation.py           # all of Fashion-MNIST

The teacher is `kr.zoo.small_cnn` after free adversarial training, the students are one network of a
sixteenth of its weights, from the same start, on the same images in other orders, trained against
PGD-7 by the labels alone (Madry, TRADES), by the teacher's soft labels on clean images (Hinton et
al. 2015), and by robust distillation: ARD (Goldblum et al. 2020), RSLAD (Zi et al. 2021) and IAD
(Zhu et al. 2022). "born again" is self-distillation: the student trained by TRADES teaches by RSLAD
a copy of itself, here from the start that it had itself (Furlanello et al. 2018,
https://arxiv.org/abs/1805.04770, take a new one). --output keeps networks and numbers: what is
there is not made again.

Measured, linf 0.1, four epochs, 1,000 test images, AutoAttack on 200, one run each (Keras 3, a core
that other work shared; CPU seconds of the training alone; docs/distillation.md):

                           clean %      PGD-20 %      margin %  AutoAttack %         CPU s
teacher                       87.5          75.5          75.7          75.5         170.3
Madry                         76.6          63.4          63.1          60.5          65.3
TRADES(6)                     78.5          65.0          63.1          63.5          75.3
ARD                           79.3          58.5          58.0          55.0          90.9
RSLAD                         80.2          62.2          61.1          58.0         130.1
IAD                           79.1          59.2          59.1          56.0          73.5
born again                    76.9          61.3          59.9          58.5          63.4
soft labels, clean            83.1          12.4          13.4          13.0          24.0
"""

import argparse
import dataclasses
import json
import os
import pathlib
import time

import numpy as np
import tensorflow as tf
from _results import folder_of

import keras_robust as kr
from keras_robust._keras import keras

DATA = pathlib.Path(os.environ.get("KERAS_ROBUST_DATA", "../shared/data"))
COLUMNS = ("clean %", "PGD-20 %", "margin %", "AutoAttack %", "CPU s")
EPS = 0.1


@dataclasses.dataclass(frozen=True)
class Setting:
    """How the table is made.

    Attributes:
        images: training images, None for all.
        epochs: of each student, and of the teacher; it sees each batch four times.
        steps: of PGD in training.
        test: test images.
        autoattack: those of them that AutoAttack sees, 0 for none.
        width: filters of the student's first layer.
    """

    images: int | None = None
    epochs: int = 4
    steps: int = 7
    test: int = 1000
    autoattack: int = 200
    width: int = 8


QUICK = Setting(images=2048, epochs=2, steps=2, test=100, autoattack=0)


def main(arguments=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="little data, one epoch")
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--only", nargs="*", help="names of students")
    parser.add_argument("--output", type=pathlib.Path, help="folder of results")
    options = parser.parse_args(arguments)
    setting = QUICK if options.quick else Setting()
    setting = dataclasses.replace(setting, epochs=options.epochs or setting.epochs)
    bench = Bench(setting, folder_of(options, "robust_distillation", "only"))

    teacher = bench.teacher()
    bench.row("teacher", teacher)
    for name, make in trainers(setting, teacher, bench).items():
        if not options.only or name in options.only:
            bench.row(name, bench.student(name, make))
    return bench.rows


def trainers(setting, teacher, bench) -> dict:
    """Name -> student -> what trains it."""
    attack = kr.attacks.PGD(EPS, steps=setting.steps)
    ramp = kr.training.Ramp(max(1, bench.steps // 5))

    def labels(objective):
        return lambda m: kr.AdversarialTraining(m, attack, objective, eps_ramp=ramp)

    def soft(method, temperature, alpha, teacher=teacher):
        return lambda m: kr.Distillation(
            m, teacher, temperature, alpha, attack, method=method, eps_ramp=ramp
        )

    def born_again(m):
        first = bench.student("TRADES(6)", labels(kr.objectives.TRADES(6.0)))
        return soft("rslad", 1.0, 5 / 6, first)(m)

    return {
        "Madry": labels(kr.objectives.Madry()),
        "TRADES(6)": labels(kr.objectives.TRADES(6.0)),
        "ARD": soft("ard", 4.0, 0.9),
        "RSLAD": soft("rslad", 1.0, 5 / 6),
        "IAD": soft("iad", 4.0, 0.9),
        "born again": born_again,
        "soft labels, clean": lambda m: kr.Distillation(m, teacher, 4.0, 0.9),
    }


class Bench:
    """Trains, measures and keeps."""

    def __init__(self, setting, folder):
        self.setting, self.folder = setting, folder
        folder.mkdir(parents=True, exist_ok=True)
        path = DATA / "fashion_mnist.npz"
        self.data = kr.data.load(str(path), batch_size=128, limit=setting.images)
        test = kr.data.load(str(path), batch_size=setting.test).test
        self.test = next(iter(test))
        self.steps = setting.epochs * int(self.data.train.cardinality())
        self.file = folder / f"rows_{setting.epochs}.json"
        self.rows = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.costs = {}
        print(f"{'':20}" + "".join(f"{column:>14}" for column in COLUMNS))

    def teacher(self):
        model = kr.zoo.small_cnn()
        free = kr.objectives.Free(replays=4)
        return self.trained(
            "teacher", model, lambda m: kr.AdversarialTraining(m, kr.attacks.PGD(EPS), free), 4
        )

    def student(self, name, make):
        return self.trained(name, student(self.setting.width), make)

    def trained(self, name, model, make, replays=1):
        path = self.folder / f"{name}_{self.setting.epochs}.weights.h5"
        if not path.exists():
            trainer, steps = make(model), self.steps * replays
            rate = keras.optimizers.schedules.CosineDecay(
                1e-4, max(steps - 200, 1), warmup_target=1e-3, warmup_steps=min(200, steps // 2)
            )
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            trainer.compile(keras.optimizers.Adam(rate), loss)
            start = time.process_time()
            trainer.fit(self.data.train, epochs=self.setting.epochs, verbose=0)
            self.costs[name] = round(time.process_time() - start, 1)
            model.save_weights(path)
        model.load_weights(path)
        return model

    def row(self, name, model):
        if name not in self.rows:
            self.rows[name] = [*measured(model, *self.test, self.setting), self.costs.get(name)]
            self.file.write_text(json.dumps(self.rows, indent=1))
        cells = ("" if value is None else f"{value:.1f}" for value in self.rows[name])
        print(f"{name:20}" + "".join(f"{cell:>14}" for cell in cells), flush=True)


def student(width):
    """Two convolutions of stride 2 and two dense layers, from one start whoever trains it."""

    def start(seed):
        return {"kernel_initializer": keras.initializers.GlorotUniform(seed=seed)}

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Rescaling(2.0, -1.0),
            layers.Conv2D(width, 3, 2, padding="same", activation="relu", **start(0)),
            layers.Conv2D(2 * width, 3, 2, padding="same", activation="relu", **start(1)),
            layers.Flatten(),
            layers.Dense(4 * width, activation="relu", **start(2)),
            layers.Dense(10, **start(3)),
        ]
    )


def measured(model, x, y, setting) -> list:
    """Shares right in percent: clean, under PGD-20 by two losses, and under AutoAttack."""
    attacks = [kr.attacks.PGD(EPS, steps=20, loss=loss) for loss in ("ce", "margin")]
    row = [right(model, attack, x, y) for attack in (None, *attacks)]
    few = setting.autoattack
    return [*row, right(model, kr.attacks.AutoAttack(EPS), x[:few], y[:few]) if few else None]


def right(model, attack, x, y) -> float:
    inputs = x if attack is None else attack(model, x, y)
    return round(100 * float(np.mean(np.argmax(model(inputs, training=False), 1) == y)), 1)


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    keras.utils.set_random_seed(0)
    main()
