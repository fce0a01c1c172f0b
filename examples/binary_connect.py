"""BinaryConnect on MNIST: a bit a weight, and what attacks make of it.

    python examples/binary_connect.py --quick     # little data, half a minute
    python examples/binary_connect.py             # all of MNIST, on one core
    python examples/binary_connect.py --data cifar10 --bfloat16    # a convolutional net

Three hidden layers of 512 units, batch normalization, squared hinge, Adam with a step that falls
exponentially, on the digits as they are: Courbariaux, Bengio and David 2015,
https://arxiv.org/abs/1511.00363, whose 3 x 1024 units had 1,000 epochs of SGD. Every row's model is
kept in --output, and those there are not trained again.

As measured (seed 0, 12 epochs, one core that other work shared; PGD-20 on the margin, linf 0.1):

                           paper  error %  PGD-20 %     packed  bits  int8 tflite  us float  us int8
no regularizer              1.30     1.46       0.9  3,097,898 26.62      978,664        46       12
deterministic               1.29     1.55       0.5    135,645  1.17      978,736        49       12
stochastic, real            1.18     2.60       5.2  3,052,235 26.23      978,736        51       15
stochastic, binary          1.18     2.97       4.6    134,223  1.15      978,736        37       11
stochastic, 10 sampled      1.18     2.85       5.6
50% dropout                 1.01     3.12       6.4  3,102,274 26.66      978,760        49       11
deterministic, attacked              3.78      73.5    134,736  1.16      978,664        47       11

Twelve epochs are few for draws and dropout, which slow learning down. After 60, in bfloat16:

no regularizer              1.30     1.35       0.3  3,109,671 26.73      978,736        45       11
deterministic               1.29     1.36       0.1    132,304  1.14      978,760        44       10
stochastic, real            1.18     1.27       0.6  2,997,234 25.76      978,760        44       10
stochastic, binary          1.18     1.43       0.6    129,219  1.11      978,760        44       10
stochastic, 10 sampled      1.18     1.55       1.2
50% dropout                 1.01     1.49       1.9  3,113,540 26.76      978,760        50       14
deterministic, attacked              1.81      79.9    129,554  1.11      978,760        45       11

CIFAR-10, 12 epochs, the
paper's net a quarter as wide, linf 2/255, 42 minutes of one core:

                           paper  error %  PGD-20 %     packed  bits  int8 tflite  us float  us int8
no regularizer             10.64    17.58      10.1  2,940,195 26.76      918,072       381      115
deterministic               9.90    18.63      25.0    121,904  1.11      918,072       374      113
stochastic, real            8.27    26.65      46.8  2,884,693 26.26      918,072       373      113
stochastic, binary          8.27    29.13      42.5    119,488  1.09      918,072       380      115
stochastic, 10 sampled      8.27    29.49      48.3
deterministic, attacked             37.50      51.2    121,444  1.10      918,072       378      115
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
BATCH = 100
# Training images on which batch normalization is measured anew.
SEEN = 10_000
# A row that needs an attack, and no paper.
ATTACKED = "deterministic, attacked"


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set, and the net that the paper trains on it, narrower.

    Attributes:
        files: names in `DATA`, the first that is there.
        eps: radius of the attacks, linf.
        units: of the hidden layers; for a convolutional net, of its two dense layers.
        rate: of Adam's first step.
        paper: test errors of the paper's table 2 in per cent.
    """

    files: tuple[str, ...]
    eps: float
    units: int
    epochs: int
    rate: float
    paper: dict


TASKS = {
    "mnist": Task(
        ("mnist.npz",),
        0.1,
        units=512,
        epochs=12,
        rate=1e-3,
        paper={
            "no regularizer": 1.30,
            "deterministic": 1.29,
            "stochastic": 1.18,
            "50% dropout": 1.01,
        },
    ),
    "cifar10": Task(
        ("cifar10.npz", "cifar10_subset.npz"),
        2 / 255,
        units=256,
        epochs=12,
        rate=3e-3,
        paper={"no regularizer": 10.64, "deterministic": 9.90, "stochastic": 8.27},
    ),
}


def main(arguments=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="little data, small nets")
    parser.add_argument("--data", choices=list(TASKS), default="mnist")
    parser.add_argument("--rows", nargs="*", help="only these")
    parser.add_argument("--units", type=int, default=None, help="of each hidden layer")
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--bfloat16", action="store_true", help="networks compute in it")
    parser.add_argument("--output", type=pathlib.Path, help="folder of results")
    options = parser.parse_args(arguments)
    task = TASKS[options.data]
    titles = [*task.paper, ATTACKED]
    unknown = sorted(set(options.rows or ()) - set(titles))
    if unknown:
        parser.error(f"argument --rows: {unknown} are none of {titles}")
    units = options.units or (64 if options.quick else task.units)
    epochs = options.epochs or (4 if options.quick else task.epochs)
    data = images_of(task, 2000 if options.quick else None)
    options.output = folder_of(options, f"binary_connect/{options.data}", "rows")
    rows = Rows(options, task, data)
    for title in options.rows or titles:
        rows.run(title, units, epochs)
    rows.save("rows.json")
    return rows.numbers


class Rows:
    """Trains each row once, and measures the files that are made of it."""

    def __init__(self, options, task, data):
        self.folder, self.few, self.task, self.data = options.output, options.quick, task, data
        self.dtype = "mixed_bfloat16" if options.bfloat16 else "float32"
        self.numbers = {}
        self.seen = tf.data.Dataset.from_tensor_slices(data["train"][0][:SEEN]).batch(500)
        print(
            f"{'':26}{'paper':>6}{'error %':>9}{'PGD-20 %':>10}{'packed':>11}{'bits':>6}"
            f"{'int8 tflite':>13}{'us float':>10}{'us int8':>9}"
        )

    def run(self, title, units, epochs):
        path = self.folder / f"{title}.keras"
        if not path.exists():
            start = time.process_time()
            shape = self.data["train"][0].shape[1:]
            trained = make(title, units, shape, self.dtype)
            eps = self.task.eps if title == ATTACKED else None
            train(trained, self.data["train"], epochs, self.task.rate, eps)
            self.numbers[f"{title}: CPU s"] = round(time.process_time() - start)
            model = make(title, units, shape)
            model.set_weights(trained.get_weights())
            model.save(path)
        model = keras.models.load_model(path)
        if not any(hasattr(layer, "latent") for layer in model.layers):
            self.report(title, model, model)
            return
        # The paper infers with the real weights after stochastic training.
        kinds = ("real", "binary") if title == "stochastic" else ("binary",)
        for kind in kinds:
            # Drawn weights gave the statistics of training, and others are used now.
            drawn = title == "stochastic"
            frozen = kr.compress.freeze_binary(model, kind, batch_norm=self.seen if drawn else None)
            name = title if len(kinds) == 1 else f"{title}, {kind}"
            self.report(name, frozen, frozen)
        if title == "stochastic":
            self.report("stochastic, 10 sampled", model, None)

    def report(self, name, model, frozen):
        x, y = self.data["test"]
        count = 200 if self.few else 1000
        sampled = frozen is None
        logits = sampled_logits(model) if sampled else model
        row = {
            "error": round(100 * (1 - accuracy(logits, x, y)), 2),
            "robust": round(
                100 * robust(logits, x[:count], y[:count], self.task.eps, 5 if self.few else 20), 1
            ),
        }
        if not sampled:
            row |= files(frozen, self.folder / name, x, 1 if self.few else 9)
        self.numbers[name] = row
        paper = self.task.paper.get(name.partition(", ")[0]) if name != ATTACKED else None
        line = f"{name:26}{'' if paper is None else f'{paper:.2f}':>6}"
        line += f"{row['error']:9.2f}{row['robust']:10.1f}"
        if not sampled:
            line += f"{row['packed']:11,}{row['bits']:6.2f}{row['tflite']:13,}"
            line += f"{row['float us']:10.0f}{row['int8 us']:9.0f}"
        print(line, flush=True)
        self.save("rows.json")

    def save(self, name):
        (self.folder / name).write_text(json.dumps(self.numbers, indent=1))


def make(title, units, shape, dtype="float32"):
    """The net of a row: all layers binary but for two rows, BatchNormalization after each.

    Three hidden layers for images of one channel, else the paper's pairs of 3x3 convolutions
    before two hidden layers, its widths in its proportions. It computes in `dtype`.
    """
    net = Net(title, dtype)
    layers = [keras.Input(shape)]
    if shape[2] > 1:
        layers.append(keras.layers.Rescaling(4.0, -2.0, dtype=dtype))
        for stage, width in enumerate((units // 8, units // 4, units // 2), 1):
            layers += net.layer("conv", width, f"conv{2 * stage - 1}")
            layers += net.layer("conv", width, f"conv{2 * stage}", pooled=True)
    layers.append(keras.layers.Flatten())
    for number in range(3 if shape[2] == 1 else 2):
        layers += net.layer("dense", units, f"hidden{number + 1}")
    return keras.Sequential([*layers, *net.layer("dense", 10, "logits", last=True)])


class Net:
    """Makes the layers of a row's network, each with a seed of its own."""

    def __init__(self, title, dtype):
        self.dtype = dtype
        self.binary = not title.startswith(("no", "50%"))
        self.stochastic, self.dropout = title == "stochastic", title.startswith("50%")
        self.made = 0

    def layer(self, kind, units, name, pooled=False, last=False) -> list:
        """A layer of weights, and what follows it."""
        keywords = {"use_bias": False, "name": name, "dtype": self.dtype}
        if self.binary:
            keywords["stochastic"] = self.stochastic
            kinds = {"dense": kr.layers.BinaryDense, "conv": kr.layers.BinaryConv2D}
        else:
            keywords["kernel_initializer"] = keras.initializers.GlorotUniform(seed=self.made)
            kinds = {"dense": keras.layers.Dense, "conv": keras.layers.Conv2D}
        size = (units, 3) if kind == "conv" else (units,)
        if kind == "conv":
            keywords["padding"] = "same"
        layers = [kinds[kind](*size, **keywords)]
        layers += [keras.layers.MaxPooling2D(dtype=self.dtype)] * pooled
        dtype = "float32" if last else self.dtype
        layers.append(keras.layers.BatchNormalization(momentum=0.85, epsilon=1e-4, dtype=dtype))
        if not last:
            layers.append(keras.layers.ReLU(dtype=dtype))
            if self.dropout:
                layers.append(keras.layers.Dropout(0.5, seed=self.made, dtype=dtype))
        self.made += 1
        return layers


def train(model, data, epochs, rate, eps=None):
    """Against attacks of radius `eps`, where one is given."""
    batches = tf.data.Dataset.from_tensor_slices(data).shuffle(len(data[0]), seed=0)
    batches = batches.batch(BATCH, drop_remainder=True)
    if eps is not None:
        # A step costs four of a plain one.
        epochs = max(1, epochs // 3)
        attack = kr.attacks.PGD(eps=eps, steps=3, step_size=eps / 2)
        model = kr.AdversarialTraining(model, attack)
    total = epochs * len(batches)
    rate = keras.optimizers.schedules.ExponentialDecay(rate, total, 3e-3)
    model.compile(keras.optimizers.Adam(rate), kr.losses.SquaredHinge())
    model.fit(batches, epochs=epochs, shuffle=False, verbose=0)


def accuracy(logits, x, y) -> float:
    found = [np.argmax(logits(part), -1) for part in np.array_split(x, max(1, len(x) // 500))]
    return float(np.mean(np.concatenate(found) == y))


def robust(logits, x, y, eps, steps) -> float:
    """Share of images classified right under PGD, which climbs the margin."""
    attack = kr.attacks.PGD(eps=eps, steps=steps, step_size=eps / 8, loss="margin")
    # The ensemble keeps ten networks' activations of each part.
    parts = zip(*(np.array_split(values, max(1, len(x) // 250)) for values in (x, y)))
    found = [attack(logits, *part, seed=number) for number, part in enumerate(parts)]
    return accuracy(logits, np.concatenate(found), y)


def sampled_logits(model):
    """The ensemble, traced once."""
    return tf.function(lambda x: kr.layers.sampled_logits(model, x, samples=10))


def files(frozen, path, x, rounds) -> dict:
    """Bytes of the packed file and of the int8 one, and both files' time for an image."""
    packed = kr.compress.pack(frozen, path.with_suffix(".krz"))
    whole = kr.export.tflite(frozen, path.with_suffix(".tflite"), check=x[:100])
    small = kr.export.tflite(
        frozen, path.with_suffix(".int8.tflite"), representative=x[:500], check=x[:100]
    )
    micros = latency([whole.path, small.path], x[:1], rounds)
    weights = sum(value.size for value in frozen.get_weights() if value.ndim > 1)
    return {
        "packed": packed,
        "bits": round(8 * packed / weights, 3),
        "tflite": small.path.stat().st_size,
        "float us": micros[0],
        "int8 us": micros[1],
    }


def latency(paths, x, rounds) -> list[float]:
    """Median microseconds for one image on one thread, the files in turn."""
    models = [kr.export.TFLiteModel(path, threads=1) for path in paths]
    times = [[model.latency_ms(x) for model in models] for _ in range(rounds)]
    return [round(1000 * value, 1) for value in np.median(times, axis=0)]


def images_of(task, limit) -> dict:
    found = [DATA / name for name in task.files if (DATA / name).exists()]
    if not found:
        raise SystemExit(f"none of {task.files} is in {DATA}; set KERAS_ROBUST_DATA.")
    with np.load(found[0]) as file:
        x = {part: (file[f"x_{part}"] / 255).astype("float32") for part in PARTS}
        y = {part: file[f"y_{part}"].astype("int32") for part in PARTS}
    limits = {"train": limit, "test": limit and limit // 2}
    x = {part: images if images.ndim == 4 else images[..., None] for part, images in x.items()}
    return {part: (x[part][: limits[part]], y[part][: limits[part]]) for part in PARTS}


PARTS = ("train", "test")

if __name__ == "__main__":
    main()
