"""Every objective on a small network: what it costs, and what it holds.

    python examples/objectives.py --quick     # a few steps each, about a minute
    python examples/objectives.py             # 10,000 images, two epochs each, on one core

A small network on Fashion-MNIST, linf 0.1: enough to see that each objective works and what it
costs, too short for a ranking. As measured (Keras 3, one core that other work shared):

                       clean %  PGD-20 %  margin %  CPU s an epoch
plain                     82.4      23.2      23.4             1.0
Madry                     78.6      61.1      61.2             5.8
Madry, average (EMA)      78.1      62.6      62.1             5.8
Madry, smoothing 0.1      78.0      61.7      60.7             5.7
Mixed(0.5)                78.6      58.0      56.8             6.4
TRADES(6)                 76.1      62.0      60.7             6.2
MART(5)                   75.4      62.1      60.1             5.5
ALP(0.5)                  74.0      63.2      61.1             6.5
AWP(0.005)                77.5      62.5      61.8             7.2
Ensemble                  76.7      58.1      56.4             5.9
Fast                      77.3      60.4      60.2             1.9
Fast, GradAlign 0.2       77.8      60.5      60.4             4.8
Free(4)                   80.4      62.4      62.1             4.4
VAT(1)                    81.5      56.2      54.2             2.9
GradientPenalty(0.1)      76.1      57.3      57.6             1.9
"""

import argparse
import json
import pathlib
import time

import numpy as np
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras

EPS = 0.1


def main(arguments=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="little data, one epoch")
    parser.add_argument("--images", type=int, default=None, help="training images")
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--only", nargs="*", help="names of objectives")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file for the numbers")
    options = parser.parse_args(arguments)
    images = options.images or (512 if options.quick else 10_000)
    epochs = options.epochs or (1 if options.quick else 2)
    data = kr.data.load("embedded", batch_size=128, limit=images)
    test = kr.data.load("embedded", batch_size=100 if options.quick else 1000).test
    test = next(iter(test))

    rows = {}
    print(f"{'':22}{'clean %':>8}{'PGD-20 %':>10}{'margin %':>10}{'CPU s an epoch':>16}")
    for name, objective in objectives(data.train).items():
        if options.only and name not in options.only:
            continue
        model, seconds, average = trained(objective, data.train, epochs, smooth="smoothing" in name)
        report(rows, name, model, test, seconds)
        if name == "Madry":
            with average.applied():
                report(rows, "Madry, average (EMA)", model, test, seconds)
        if options.output:
            options.output.write_text(json.dumps(rows, indent=1))
    return rows


def objectives(train) -> dict:
    """Name -> objective; None is training without any."""
    o = kr.objectives
    other, _, _ = trained(None, train, 1, seed=1)
    return {
        "plain": None,
        "Madry": o.Madry(),
        "Madry, smoothing 0.1": o.Madry(),
        "Mixed(0.5)": o.Mixed(0.5),
        "TRADES(6)": o.TRADES(6.0),
        "MART(5)": o.MART(5.0),
        "ALP(0.5)": o.ALP(0.5),
        "AWP(0.005)": o.AWP(0.005),
        "Ensemble": o.Ensemble([other]),
        "Fast": o.Fast(),
        "Fast, GradAlign 0.2": o.Fast(grad_align=0.2),
        "Free(4)": o.Free(replays=4),
        "VAT(1)": o.VAT(),
        "GradientPenalty(0.1)": o.GradientPenalty(weight=EPS, norm="l1"),
    }


class Clock(keras.callbacks.Callback):
    """Processor seconds of the fastest epoch: the first one also traces."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.process_time() - self._start)


def trained(objective, train, epochs, seed=0, smooth=False):
    """A model, the seconds of its fastest epoch, and its average weights."""
    model, clock = kr.zoo.small_cnn(seed=seed), Clock()
    average = kr.training.WeightAverage(decay=0.98)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if objective is None:
        model.compile(keras.optimizers.Adam(1e-3), loss)
        model.fit(train, epochs=epochs, callbacks=[clock], verbose=0)
        return model, min(clock.seconds), None
    attack = kr.attacks.PGD(EPS, steps=7)
    trainer = kr.AdversarialTraining(model, attack, objective)
    trainer.compile(keras.optimizers.Adam(1e-3), kr.losses.LabelSmoothing(0.1) if smooth else loss)
    callbacks = [clock, average] if isinstance(objective, kr.objectives.Madry) else [clock]
    trainer.fit(train, epochs=epochs, callbacks=callbacks, verbose=0)
    return model, min(clock.seconds), average


def report(rows, name, model, test, seconds):
    """Measures and prints one row. Training climbs the cross-entropy, so also the margin."""
    x, y = test
    attacks = [None, *(kr.attacks.PGD(EPS, steps=20, loss=loss) for loss in ("ce", "margin"))]
    inputs = [x if attack is None else attack(model, x, y) for attack in attacks]
    found = [np.mean(np.argmax(model(part, training=False), 1) == y) for part in inputs]
    rows[name] = [*(round(100 * float(share), 1) for share in found), round(seconds, 2)]
    clean, pgd, margin, seconds = rows[name]
    print(f"{name:22}{clean:8.1f}{pgd:10.1f}{margin:10.1f}{seconds:16.1f}", flush=True)


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    main()
