"""Neuron and channel pruning of LeNet-5 on MNIST: smaller models of plain layers.

python examples/prune_neurons.py --quick     # little data, short training, 20 seconds
python examples/prune_neurons.py             # all of MNIST, a quarter of an hour on one core

As measured (Keras 3, one core; docs/neurons.md compares with the paper):

                           paper  error %  filters  units  weights    .tflite  us an image  PGD-20 %
dense                 .9 % 20-50     0.65    20-50    500  431,080  1,728,556           61
APoZ, 3 rounds                       0.71    20-35    264  168,809    679,472           49
APoZ, half at once                   0.85    10-25    250  109,295    441,416           23
SSL 1                  .8 % 5-19     0.70    15-22    437  167,303    673,448           30
SSL 2                 1.0 % 3-12     0.78    15-17    437  130,463    526,088           28
adversarial, dense                   0.97    20-50    500  431,080  1,728,632           61      84.9
adversarial, half                    1.56    10-25    250  109,295    441,492           22      81.1
"""

import argparse
import os
import pathlib
import tempfile
import time

import numpy as np
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.export import TFLiteModel

DATA = pathlib.Path(os.environ.get("KERAS_ROBUST_DATA", "../shared/data"))
CONVOLUTIONS = ["conv1", "conv2"]
# Wen et al. 2016, table 1: error and filters.
PAPER = {"dense": ".9 % 20-50", "SSL 1": ".8 % 5-19", "SSL 2": "1.0 % 3-12"}
# Of the penalty on the convolutions, and on the dense layer, which would make up for them.
WEIGHTS = {"SSL 1": (0.02, 0.005), "SSL 2": (0.05, 0.005)}
EPS = 0.2


def main(arguments=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="little data, short training")
    options = parser.parse_args(arguments)
    keras.utils.set_random_seed(0)
    data = Data(2000 if options.quick else None, options.quick)
    models, robust = plain(data), adversarial(data)
    latencies, sizes = on_device({**models, **robust}, data, 5 if options.quick else 60)
    rows = {}
    for name, model in {**models, **robust}.items():
        rows[name] = {
            "error": data.error(model),
            "filters": "-".join(str(model.get_layer(n).filters) for n in CONVOLUTIONS),
            "units": model.get_layer("dense1").units,
            "weights": model.count_params(),
            "bytes": sizes[name],
            "latency_us": latencies[name],
            "robust": data.robust(model) if name in robust else None,
        }
    show(rows)
    return rows


class Data:
    """MNIST, as batches for training and as arrays for the rest."""

    def __init__(self, limit, quick):
        loaded = kr.data.load(DATA / "mnist.npz", batch_size=128, limit=limit)
        self.train, self.quick = loaded.train, quick
        parts = zip(*loaded.test.as_numpy_iterator())
        self.x, self.y = (np.concatenate(part) for part in parts)
        # To count zeros on.
        self.some = np.concatenate([x for x, _ in loaded.train.take(8).as_numpy_iterator()])

    def epochs(self, count):
        return 1 if self.quick else count

    def error(self, model) -> float:
        """Per cent of the test images."""
        found = model.predict(self.x, 500, verbose=0).argmax(-1)
        return round(100 * float(np.mean(found != self.y)), 2)

    def robust(self, model) -> float:
        """Per cent of 1,000 test images that PGD-20 does not fool."""
        x, y = self.x[:1000], self.y[:1000]
        if self.quick:
            x, y = x[:100], y[:100]
        x_adv = kr.attacks.PGD(eps=EPS, steps=20)(model, x, y, seed=0)
        found = model.predict(np.asarray(x_adv), 500, verbose=0).argmax(-1)
        return round(100 * float(np.mean(found == y)), 1)


def plain(data) -> dict:
    models = {"dense": lenet5()}
    fit(models["dense"], data, data.epochs(10))

    # Hu et al. 2016: remove what is mostly zero, train on, and again.
    model = models["dense"]
    for _ in range(1 if data.quick else 3):
        model = kr.compress.PruneNeurons(threshold="apoz").apply(model, data.some)
        fit(model, data, 1, rate=5e-4)
    models["APoZ, 3 rounds"] = model

    model = kr.compress.PruneNeurons(0.5).apply(models["dense"], data.some)
    fit(model, data, data.epochs(2), rate=5e-4)
    models["APoZ, half at once"] = model

    for name, weights in WEIGHTS.items():
        model = copy(models["dense"])
        lasso = [
            kr.training.ProximalGroupLasso(kr.layers.GroupLasso(weight), layers=layers)
            for weight, layers in zip(weights, (CONVOLUTIONS, ["dense1"]))
        ]
        # Momentum would revive groups that were just emptied.
        fit(model, data, data.epochs(10), 0.1, keras.optimizers.SGD, lasso)
        model = kr.compress.remove_dead(model)
        fit(model, data, data.epochs(8))
        models[name] = model
    return models


def adversarial(data) -> dict:
    """Trained on single steps (`kr.objectives.Fast`): whole, and half of it."""
    attack = kr.attacks.PGD(eps=EPS, steps=10)

    def trained(model, epochs, rate=1e-3):
        trainer = kr.AdversarialTraining(model, attack, objective=kr.objectives.Fast())
        fit(trainer, data, epochs, rate)
        return model

    whole = trained(lenet5(), data.epochs(3))
    half = kr.compress.PruneNeurons(0.5).apply(whole, data.some)
    return {"adversarial, dense": whole, "adversarial, half": trained(half, data.epochs(2), 5e-4)}


def lenet5():
    """Caffe's LeNet-5, as the paper has it, with a ReLU behind the convolutions too."""
    layers = keras.layers
    inputs = keras.Input((28, 28, 1))
    x = layers.Rescaling(2.0, -1.0)(inputs)
    for i, filters in enumerate((20, 50), 1):
        x = layers.Conv2D(filters, 5, activation="relu", name=f"conv{i}")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Dense(500, "relu", name="dense1")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


def copy(model):
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    return twin


def fit(model, data, epochs, rate=1e-3, optimizer=keras.optimizers.Adam, callbacks=()):
    """Cross-entropy from logits; the learning rate falls to zero."""
    rate = keras.optimizers.schedules.CosineDecay(rate, epochs * int(data.train.cardinality()))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer(rate), loss, jit_compile=False)
    start = time.perf_counter()
    model.fit(data.train, epochs=epochs, callbacks=list(callbacks), verbose=0)
    print(f"{epochs} epochs in {time.perf_counter() - start:.0f} s", flush=True)


def on_device(models, data, rounds):
    """Microseconds an image and bytes of each model's .tflite file, measured in turns."""
    times = {name: [] for name in models}
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for number, (name, model) in enumerate(models.items()):
            path = pathlib.Path(folder) / f"{number}.tflite"
            kr.export.tflite(model, path, check=data.x[:64])
            files[name] = TFLiteModel(path, threads=1)
        sizes = {name: file.path.stat().st_size for name, file in files.items()}
        for _ in range(rounds):
            for name, file in files.items():
                times[name].append(1e3 * file.latency_ms(data.x[:10], runs=10))
    return {name: float(np.median(found)) for name, found in times.items()}, sizes


def show(rows) -> None:
    print(f"\n{'':20}{'paper':>12}{'error %':>9}{'filters':>9}{'units':>7}{'weights':>9}", end="")
    print(f"{'.tflite':>11}{'us an image':>13}{'PGD-20 %':>10}")
    for name, row in rows.items():
        robust = "" if row["robust"] is None else f"{row['robust']:.1f}"
        print(
            f"{name:20}{PAPER.get(name, ''):>12}{row['error']:9.2f}{row['filters']:>9}"
            f"{row['units']:7}{row['weights']:9,}{row['bytes']:11,}{row['latency_us']:13.0f}"
            f"{robust:>10}"
        )


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    main()
