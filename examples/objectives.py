"""Every objective on a small network: what it costs, and what it holds.

    python examples/objectives.py --quick     # a few steps each, about a minute
    python examples/objectives.py             # 10,000 images, two epochs each, on one core
    python examples/objectives.py --data fashion_mnist.npz --float32 --output rows.json   # below

--data takes mnist.npz (eps 0.3) and cifar10.npz (8/255) too, with tables in docs/objectives.md.
All of Fashion-MNIST, linf 0.1, four epochs, 1,000 test images, AutoAttack on 200, one run each, as
measured (Keras 3, one core of a Xeon, the other one busy too):

                        clean %  PGD-20 %  margin %  AutoAttack %  worst case %  CPU s an epoch
plain                      90.1       5.9       6.0           7.0           7.0             7.2
Madry                      82.1      70.6      70.0          71.0          71.0            35.2
Madry, average (EMA)       82.2      70.6      70.0          71.0          71.0            35.2
Madry, average (SWA)       82.0      70.1      69.3          68.0          68.0            35.2
Madry, smoothing 0.1       82.6      71.2      70.0          70.5          70.5            36.4
Mixed(0.5)                 86.5      67.5      66.7          66.0          66.0            41.1
TRADES(3)                  83.3      69.8      68.8          67.5          67.5            41.8
TRADES(6)                  82.1      70.6      69.7          71.5          71.5            39.1
MART(5)                    81.0      72.1      70.3          70.5          70.5            38.9
ALP(0.5)                   81.8      71.5      70.2          72.0          72.0            38.6
AWP(0.005)                 81.4      69.8      69.4          69.0          69.0            37.4
Ensemble                   83.3      67.2      66.6          64.0          64.0            37.5
Fast                       83.9      69.1      68.5          69.0          69.0            12.4
Fast, guarded              83.9      68.9      68.9          69.0          69.0            12.7
Fast, GradAlign 0.2        84.4      69.2      68.2          68.0          68.0            41.8
Free(4)                    87.7      74.8      74.8          73.5          73.5            29.2
VAT(1)                     87.5      53.8      53.3          54.0          54.0            19.5
GradientPenalty(0.1)       80.2      60.0      61.1          56.0          56.0            15.2
"""

import argparse
import dataclasses
import json
import pathlib
import time

import numpy as np
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras

COLUMNS = (
    "clean %",
    "PGD-20 %",
    "margin %",
    "AutoAttack %",
    "worst case %",
    "CPU s an epoch",
    "CPU min",
)

# What `WeightAverage` takes, evaluated beside Madry's own weights.
AVERAGES = {"average (EMA)": 0.98, "average (SWA)": None}


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a table is made.

    Attributes:
        eps: radius, linf.
        epochs: of Adam; its rate rises to 1e-3 in the first 200 steps and falls by a cosine.
        ramp: share of the steps over which eps grows to its full size.
        images: training images, None for all.
        autoattack: test images that AutoAttack sees, 0 for none.
        attack_dtype: what the passes of the attack compute in.
        steps: of PGD in training.
    """

    eps: float
    epochs: int
    ramp: float = 0.0
    images: int | None = None
    autoattack: int = 0
    attack_dtype: str | None = None
    steps: int = 7


SETTINGS = {
    "embedded": Setting(0.1, epochs=2, images=10_000),
    "mnist": Setting(0.3, epochs=6, ramp=0.4, autoattack=300, attack_dtype="bfloat16"),
    "fashion_mnist": Setting(0.1, epochs=4, ramp=0.2, autoattack=200, attack_dtype="bfloat16"),
    "cifar10": Setting(8 / 255, epochs=4, ramp=0.2, autoattack=300, attack_dtype="bfloat16"),
}


def main(arguments=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="little data, one epoch")
    parser.add_argument("--data", default="embedded", help="name or .npz for kr.data.load")
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--steps", type=int, default=None, help="of the attack in training")
    parser.add_argument("--float32", action="store_true", help="the passes of the attack too")
    parser.add_argument("--autoattack", type=int, default=None, help="images it sees, 0 for none")
    parser.add_argument("--only", nargs="*", help="names of objectives")
    parser.add_argument("--output", type=pathlib.Path, help="JSON for the rows; those in it stay")
    options = parser.parse_args(arguments)
    setting = setting_of(options)
    data = kr.data.load(options.data, batch_size=128, limit=setting.images)
    tests = kr.data.load(options.data, batch_size=100 if options.quick else 1000).test
    # What is measured, and other images for the guard, which chooses weights.
    test, held_out = tests.take(2)

    rows = {}
    if options.output and options.output.exists():
        rows = json.loads(options.output.read_text())
    print(f"{'':22}" + "".join(f"{column:>16}" for column in COLUMNS))
    for name, objective in objectives(data).items():
        if options.only and name not in options.only:
            continue
        if name not in rows:
            guard = None
            if "guard" in name:
                guard = kr.training.OverfittingGuard(*(part[:500] for part in held_out), every=200)
            smooth = "smoothing" in name
            model, averages, costs = trained(objective, data, setting, smooth=smooth, guard=guard)
            rows[name] = measured(model, test, setting) + costs
            for kind, average in averages.items() if name == "Madry" else ():
                with average.applied():
                    rows[f"{name}, {kind}"] = measured(model, test, setting) + costs
            if options.output:
                options.output.write_text(json.dumps(rows, indent=1))
        for shown in [name] + [f"{name}, {kind}" for kind in AVERAGES] * (name == "Madry"):
            print(line(shown, rows[shown]), flush=True)
    return rows


def setting_of(options) -> Setting:
    """That of the data set whose name the given one begins with, cut down as asked for."""
    stem = pathlib.Path(options.data).stem
    known = [setting for name, setting in SETTINGS.items() if stem.startswith(name)]
    if not known:
        raise SystemExit(f"--data: no setting for {options.data!r}, there is {[*SETTINGS]}.")
    setting = known[0]
    if options.quick:
        setting = dataclasses.replace(setting, images=512, epochs=1, autoattack=0)
    if options.autoattack is not None:
        setting = dataclasses.replace(setting, autoattack=options.autoattack)
    if options.float32:
        setting = dataclasses.replace(setting, attack_dtype=None)
    return dataclasses.replace(
        setting,
        epochs=options.epochs or setting.epochs,
        steps=options.steps or setting.steps,
    )


def line(name, row) -> str:
    cells = ("" if value is None else f"{value:.1f}" for value in row)
    return f"{name:22}" + "".join(f"{cell:>16}" for cell in cells)


def objectives(data) -> dict:
    """Name -> objective; None is training without any."""
    o = kr.objectives
    other, _, _ = trained(None, data, Setting(0.1, epochs=1), seed=1)
    return {
        "plain": None,
        "Madry": o.Madry(),
        "Madry, smoothing 0.1": o.Madry(),
        "Mixed(0.5)": o.Mixed(0.5),
        "TRADES(3)": o.TRADES(3.0),
        "TRADES(6)": o.TRADES(6.0),
        "MART(5)": o.MART(5.0),
        "ALP(0.5)": o.ALP(0.5),
        "AWP(0.005)": o.AWP(0.005),
        "Ensemble": o.Ensemble([other]),
        "Fast": o.Fast(),
        "Fast, guarded": o.Fast(),
        "Fast, GradAlign 0.2": o.Fast(grad_align=0.2),
        "Free(4)": o.Free(replays=4),
        "VAT(1)": o.VAT(),
        "GradientPenalty(0.1)": o.GradientPenalty(weight=0.1, norm="l1"),
    }


class Clock(keras.callbacks.Callback):
    """Processor seconds of every epoch; the first one also traces."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.process_time() - self._start)

    def costs(self) -> list:
        """Seconds of the fastest epoch, and minutes of all."""
        return [round(min(self.seconds), 2), round(sum(self.seconds) / 60, 2)]


def trained(objective, data, setting, seed=0, smooth=False, guard=None):
    """A model, its `WeightAverage`s, and `[seconds of the fastest epoch, minutes of all]`."""
    model, clock = kr.zoo.small_cnn(data.input_shape, data.classes, seed=seed), Clock()
    # The mean of epochs takes the second half of them.
    start = setting.epochs // 2
    averages = {
        kind: kr.training.WeightAverage(decay=decay, start=0 if decay else start)
        for kind, decay in AVERAGES.items()
    }
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    steps = int(data.train.cardinality()) * setting.epochs
    steps *= objective.replays if isinstance(objective, kr.objectives.Free) else 1
    rate = keras.optimizers.schedules.CosineDecay(
        1e-4, max(steps - 200, 1), warmup_target=1e-3, warmup_steps=min(200, steps // 2)
    )
    if objective is None:
        model.compile(keras.optimizers.Adam(rate), loss)
        model.fit(data.train, epochs=setting.epochs, callbacks=[clock], verbose=0)
        return model, {}, clock.costs()
    # VAT's finite differences would drown in the rounding of bfloat16.
    passes = None if isinstance(objective, kr.objectives.VAT) else setting.attack_dtype
    trainer = kr.AdversarialTraining(
        model,
        kr.attacks.PGD(setting.eps, steps=setting.steps),
        objective,
        eps_ramp=kr.training.Ramp(int(setting.ramp * steps)) if setting.ramp else None,
        attack_dtype=passes,
    )
    trainer.compile(keras.optimizers.Adam(rate), kr.losses.LabelSmoothing(0.1) if smooth else loss)
    callbacks = [clock] + [guard] * (guard is not None)
    callbacks += [*averages.values()] if isinstance(objective, kr.objectives.Madry) else []
    trainer.fit(data.train, epochs=setting.epochs, callbacks=callbacks, verbose=0)
    return model, averages, clock.costs()


def measured(model, test, setting) -> list:
    """Shares right in percent: clean, under PGD-20 by two losses, under AutoAttack, under all.

    AutoAttack, and so the worst case, sees the first images; without it the worst case is of all.
    """
    x, y = test
    attacks = [
        None,
        *(kr.attacks.PGD(setting.eps, steps=20, loss=loss) for loss in ("ce", "margin")),
    ]
    held = [right(model, attack, x, y) for attack in attacks]
    row, count = [percent(each) for each in held], setting.autoattack
    if not count:
        return [*row, None, percent(np.all(held, axis=0))]
    held = [each[:count] for each in held]
    held.append(right(model, kr.attacks.AutoAttack(setting.eps), x[:count], y[:count]))
    return [*row, percent(held[-1]), percent(np.all(held, axis=0))]


def right(model, attack, x, y) -> np.ndarray:
    """`(n,)` bool."""
    inputs = x if attack is None else attack(model, x, y)
    return np.argmax(model(inputs, training=False), 1) == y


def percent(held) -> float:
    return round(100 * float(np.mean(held)), 1)


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    main()
