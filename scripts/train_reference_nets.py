"""Trains the three nets that AutoAttack is compared with its reference on, a minute in all.

    python scripts/train_reference_nets.py

Writes tests/reference/data/autoattack_nets.npz: one net trained naturally, one against
PGD at linf 0.1, and one against weak PGD whose logits are multiplied by 10,000, so that a
float32 softmax saturates and the gradient of its cross-entropy is zero almost everywhere.
Weights are rounded to float16, a file of 160 KB. Record the reference anew afterwards.
"""

import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests" / "reference"))
import reference_nets

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.data import arrays

# name -> (eps of training, epochs, factor of the logits)
NETS = {"natural": (0.0, 10, 1.0), "robust": (0.1, 30, 1.0), "masked": (0.03, 10, 1e4)}

SHAPES = {"conv1": (3, 3, 1, 8), "conv2": (3, 3, 8, 16), "dense1": (784, 32), "logits": (32, 10)}


def main() -> None:
    data = kr.data.load()
    x, y = arrays(data.test, limit=1000)
    nets = {name: train(data.train, *settings) for name, settings in NETS.items()}
    reference_nets.save(nets)
    print(f"{reference_nets.NETS}: {reference_nets.NETS.stat().st_size:,} bytes")
    for name in nets:
        model = reference_nets.keras_model(*reference_nets.load(name))
        line = [f"{name}: clean {accuracy(model, x, y):.1%}"]
        for eps in (0.02, 0.03, 0.05, 0.1):
            attack = kr.attacks.PGD(eps, loss="margin")
            line.append(f"{attack.name} {eps}: {accuracy(model, attack(model, x, y), y):.1%}")
        print(", ".join(line))


def train(dataset, eps: float, epochs: int, scale: float):
    """A trained net as layers and arrays."""
    random = np.random.default_rng(0)
    shapes = {
        "conv1": (3, 3, 1, 8),
        "conv2": (3, 3, 8, 16),
        "dense1": (784, 32),
        "logits": (32, 10),
    }
    start = {}
    for name, shape in shapes.items():
        fan = np.prod(shape[:-2]) * (shape[-2] + shape[-1])
        start[f"{name}/kernel"] = random.normal(0.0, np.sqrt(2.0 / fan), shape)
        start[f"{name}/bias"] = np.zeros(shape[-1])
    model = reference_nets.keras_model(reference_nets.small_layers(1.0), start)
    trainer, steps = model, 93 * epochs
    if eps:
        ramp = kr.training.Ramp(steps=steps // 3)
        trainer = kr.AdversarialTraining(model, kr.attacks.PGD(eps, steps=7), eps_ramp=ramp)
    trainer.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    trainer.fit(dataset, epochs=epochs, shuffle=False, verbose=0)
    weights = {}
    for name in SHAPES:
        weights[f"{name}/kernel"], weights[f"{name}/bias"] = model.get_layer(name).get_weights()
    return reference_nets.small_layers(scale), weights


def accuracy(model, x, y) -> float:
    return float(np.mean(np.argmax(model.predict(x, verbose=0), axis=1) == y))


if __name__ == "__main__":
    main()
