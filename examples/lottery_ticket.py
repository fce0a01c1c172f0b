"""Lottery tickets of LeNet-300-100 on MNIST, and what their architecture learns from scratch.

python examples/lottery_ticket.py --quick   # half a minute, little data, few rounds
python examples/lottery_ticket.py           # all of MNIST, quarter of an hour on one core

Frankle and Carbin 2019, https://arxiv.org/abs/1803.03635: Adam at 1.2e-3, batches of 60, 5,000
images for validation, 20% of the weights left pruned a round, 10% of the last layer's. They train
50,000 iterations a round, five times over; here it is --iterations, once. Then a robust pair, and
Scratch-E and Scratch-B of Liu et al. 2019, https://arxiv.org/abs/1810.05270. Rounds and rows are
kept in --output; what is there is not trained again.

Test accuracy in % at the early stop, and the iteration at which the validation loss came down to
0.1 (more, and the other tables, in docs/lottery.md):

    weights left   ticket        new weights
    100%           97.25  4,800
    51.3%          97.91  1,900  97.38  3,800
    21.1%          98.01  1,600  97.39  4,700
    13.5%          98.02  1,500  97.04  never
    3.6%           97.71  1,900  96.49  never
"""

import argparse
import json
import os
import pathlib

import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras

DATA = pathlib.Path(os.environ.get("KERAS_ROBUST_DATA", "../shared/data")) / "mnist.npz"
ROUNDS = (3, 7, 9, 15)  # 51.3, 21.1, 13.5 and 3.6% of the weights
LOSS = 0.1  # of the validation, which all but the sparsest nets come down to
ATTACK = kr.attacks.PGD(eps=0.1, norm="linf", steps=3)
JUDGE = kr.attacks.PGD(eps=0.1, norm="linf", steps=20)


def main(arguments=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="little data, few rounds")
    parser.add_argument("--iterations", type=int, default=8000, help="of each round")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("lottery_ticket"))
    options = parser.parse_args(arguments)
    data = Data(quick=options.quick)
    rows = Rows(options.output / "rows.json")
    plain(options, data, rows)
    robust(options, data, rows)
    scratch(options, data, rows)
    return rows.found


def plain(options, data, rows):
    """The ticket of each sparsity beside the same masks with new weights."""
    quick = options.quick
    tickets = kr.compress.find_ticket(
        kr.zoo.lenet_300_100(),
        data.train,
        data.validation,
        iterations=100 if quick else options.iterations,
        every=50 if quick else 100,
        rounds=1 if quick else max(ROUNDS),
        fine_tune=compiled,
        folder=options.output / "plain",
    )
    dense = tickets.rounds[0]
    rows.add("dense", plain_row, dense, tickets.trained(0), data)
    for number in (1,) if quick else ROUNDS:
        found = tickets.rounds[number]
        share = f"{100 * found.remaining:.1f}%"
        rows.add(f"ticket {share}", plain_row, found, tickets.trained(number), data)
        rows.add(f"new weights {share}", control_row, plain_row, tickets, number, data)
    rows.show("early stop", f"loss {LOSS} at", "test accuracy %", "at the end %")


def plain_row(found, model, data):
    accuracy = 100 * measure(model, data)["accuracy"]
    model.set_weights(found.trained.last_weights)
    # Flat near its minimum, the loss says little by where that is: when it came down says more.
    losses = found.trained.history["val_loss"]
    reached = [number for number, loss in enumerate(losses, 1) if loss <= LOSS]
    every = found.iteration // (1 + losses.index(min(losses)))
    first = every * reached[0] if reached else float("nan")
    return [found.iteration, first, accuracy, 100 * measure(model, data)["accuracy"]]


def control_row(row_of, tickets, number, data):
    control = tickets.control(number)
    model = tickets.ticket(number)
    model.set_weights(control.trained.weights)
    return row_of(control, model, data)


def robust(options, data, rows):
    """A robust ticket: three rounds of 40%, by adversarial training."""
    tickets = kr.compress.find_ticket(
        kr.zoo.lenet_300_100(),
        data.train,
        data.validation.take(1),
        iterations=40 if options.quick else 2000,
        every=20 if options.quick else 200,
        rounds=1 if options.quick else 3,
        rate=0.4,
        fine_tune=lambda m: compiled(kr.AdversarialTraining(m, ATTACK)),
        folder=options.output / "robust",
    )
    found = tickets.rounds[-1]
    share = f"{100 * found.remaining:.1f}%"
    rows.add("robust dense", robust_row, tickets.rounds[0], tickets.trained(0), data)
    rows.add(f"robust ticket {share}", robust_row, found, tickets.trained(found.number), data)
    name = f"robust new weights {share}"
    rows.add(name, control_row, robust_row, tickets, found.number, data)
    rows.show("early stop", "test accuracy %", "PGD-20 %", prefix="robust")


def robust_row(found, model, data):
    trainer = compiled(kr.AdversarialTraining(model, JUDGE))
    measured = trainer.evaluate(data.few, verbose=0, return_dict=True)
    return [found.iteration, 100 * measured["accuracy"], 100 * measured["robust_accuracy"]]


def scratch(options, data, rows):
    """Half of the units removed and trained on, beside the same architecture from scratch."""
    if "Scratch-B" in rows.found:
        return rows.show("epochs", "test accuracy %", prefix=("fine-tuned", "Scratch"))
    epochs = 1 if options.quick else 5
    full = compiled(kr.zoo.lenet_300_100())
    full.fit(data.train, epochs=epochs, verbose=0, shuffle=False)
    stage = kr.compress.PruneNeurons(0.5, score="l1")
    pruned = compiled(stage.apply(full))
    pruned.fit(data.train, epochs=max(epochs // 4, 1), verbose=0, shuffle=False)
    found = kr.compress.scratch_baselines(
        full, pruned, data.train, data.test, epochs=epochs, fine_tune=compiled
    )
    for row in found:
        used = row.epochs or max(epochs // 4, 1)
        rows.add(row.name, list, [used, 100 * row.measured["accuracy"]])
    rows.show("epochs", "test accuracy %", prefix=("fine-tuned", "Scratch"))


def compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1.2e-3), loss, metrics=["accuracy"], jit_compile=False)
    return model


def measure(model, data) -> dict:
    return compiled(model).evaluate(data.test, verbose=0, return_dict=True)


class Data:
    """MNIST, with the first images of the training set for validation."""

    def __init__(self, quick):
        # Where there is no file, tensorflow-datasets has it by name.
        name, limit = DATA if DATA.exists() else "mnist", 4000 if quick else None
        found = kr.data.load(name, batch_size=1000, limit=limit)
        x, y = kr.data.arrays(found.train)
        held = 1000 if quick else 5000
        self.train = shuffled(x[held:], y[held:])
        self.validation = tf.data.Dataset.from_tensor_slices((x[:held], y[:held])).batch(1000)
        self.test = found.test
        self.few = self.test.take(1 if quick else 2)


def shuffled(x, y, batch=60):
    with tf.device("CPU"):
        x, y = tf.constant(x), tf.constant(y)
    order = tf.data.Dataset.range(len(x)).shuffle(len(x), seed=0).batch(batch, drop_remainder=True)
    return order.map(lambda chosen: (tf.gather(x, chosen), tf.gather(y, chosen))).prefetch(2)


class Rows:
    """Rows of the tables, kept in a file as they come."""

    def __init__(self, path):
        self.path = path
        self.found = json.loads(path.read_text()) if path.exists() else {}

    def add(self, name, make, *arguments):
        if name not in self.found:
            self.found[name] = [round(float(value), 2) for value in make(*arguments)]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.found, indent=1))

    def show(self, *heads, prefix=("dense", "ticket", "new")):
        print("\n" + "  ".join([f"{'':26}", *heads]))
        for name, values in self.found.items():
            if name.startswith(prefix):
                cells = (f"{value:{len(head)}g}" for value, head in zip(values, heads))
                print("  ".join([f"{name:26}", *cells]), flush=True)


if __name__ == "__main__":
    main()
