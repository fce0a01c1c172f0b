"""Weight decay as a simple form of adversarial training: a LeNet with little and with much.

    python examples/weight_decay.py --quick     # a quarter of a minute
    python examples/weight_decay.py             # about ten minutes on one core

Tanay and Griffin 2018, https://arxiv.org/abs/1806.11186: the LeNet of MatConvNet, trained alike
with a low and with a high weight decay. Test images are then moved from digit d towards d + 1
(cyclic) until the network is 95% sure of it, at the temperature where half of the test images get
a confidence of 95%. The perturbation is the l2 distance in units of [0, 1]. As measured (one seed,
390 CPU seconds; docs/weight_decay.md says why the distances are nearer to each other):

              train %  test %  temperature     l2  reached  paper
low decay        0.00    1.01            5   4.60  100/100  1.6 1.77
high decay       1.35    1.53         1.67   5.48  100/100  1.2 5.75
"""

import argparse
import json
import os
import pathlib
import time

import numpy as np

import keras_robust as kr
from keras_robust._keras import keras

DATA = pathlib.Path(os.environ.get("KERAS_ROBUST_DATA", "../shared/data"))
# Weight decay, and the paper's test error (%) and mean perturbation of ten digits.
RUNS = {"low decay": (1e-4, 1.6, 1.77), "high decay": (0.1, 1.2, 5.75)}


def main(arguments=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="little data, short training")
    parser.add_argument("--epochs", type=int, help="of training, with 300 images a step")
    parser.add_argument("--images", type=int, help="test images attacked, a tenth of each digit")
    parser.add_argument("--low", type=float, default=RUNS["low decay"][0])
    parser.add_argument("--high", type=float, default=RUNS["high decay"][0])
    parser.add_argument("--output", type=pathlib.Path, help="JSON file for the numbers")
    options = parser.parse_args(arguments)
    epochs = options.epochs or (4 if options.quick else 20)
    count = options.images or (10 if options.quick else 100)
    if count < 10 or count % 10:
        parser.error(f"argument --images: {count} is no multiple of 10")
    train, test = mnist(2000 if options.quick else None)
    x, y = one_after_the_other(*test, count)

    made = {}
    print(f"{'':12}{'train %':>9}{'test %':>8}{'temperature':>13}{'l2':>7}{'reached':>9}  paper")
    for (name, (_, *paper)), decay in zip(RUNS.items(), (options.low, options.high), strict=True):
        start = time.process_time()
        batch = 50 if options.quick else 300
        model = fitted(lenet(), *train, decay, epochs, batch=batch)
        temperature = kr.attacks.match_temperature(model, test[0])
        attack = kr.attacks.ConfidenceAscent(temperature=temperature, step_size=0.05, steps=400)
        x_adv = attack(model, x, (y + 1) % 10).numpy()
        sizes = np.linalg.norm((x_adv - x).reshape(count, -1), axis=1)
        found = sizes > 0
        errors = [100 * float(np.mean(predict(model, x) != y)) for x, y in (train, test)]
        made[name] = {
            "decay": decay,
            "train_error": errors[0],
            "test_error": errors[1],
            "temperature": temperature,
            "l2": float(sizes[found].mean()) if found.any() else float("nan"),
            "reached": int(found.sum()),
            "weights_rms": [float(np.sqrt(np.mean(w**2))) for w in kernels(model)],
            "seconds": time.process_time() - start,
        }
        row = made[name]
        print(
            f"{name:12}{errors[0]:9.2f}{errors[1]:8.2f}{temperature:13.3g}{row['l2']:7.2f}"
            f"{row['reached']:5}/{count:<3}  {paper[0]} {paper[1]}",
            flush=True,
        )
    for name, row in made.items():
        rms = ", ".join(f"{value:.3f}" for value in row["weights_rms"])
        print(
            f"{name}: decay {row['decay']:g}, RMS of the kernels {rms}; {row['seconds']:.0f} CPU s"
        )
    if options.output:
        options.output.write_text(json.dumps(made, indent=1))
    return made


def lenet(seed=0):
    """MatConvNet's: only the hidden dense layer has a ReLU, and pixels are in 0 to 255.

    The decay of the first layer depends on the scale of its inputs, that of the others does not.
    """
    layers, start = keras.layers, lambda i: keras.initializers.RandomNormal(0, 0.01, seed + i)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Rescaling(255.0),
            layers.Conv2D(20, 5, kernel_initializer=start(0)),
            layers.MaxPooling2D(),
            layers.Conv2D(50, 5, kernel_initializer=start(1)),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(500, "relu", kernel_initializer=start(2)),
            layers.Dense(10, kernel_initializer=start(3)),
        ]
    )


def fitted(model, x, y, decay, epochs, rate=2e-3, batch=300):
    """SGD with momentum and decay of the kernels.

    MatConvNet adds the decay to the gradient, so that it gathers momentum; Keras decays beside
    the momentum, and the same decay is 1 / (1 - 0.9) times the number.
    """
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, weight_decay=decay / (1 - 0.9))
    kr.training.decay_kernels_only(optimizer, model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=False)
    keras.utils.set_random_seed(0)
    model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0)
    return model


def one_after_the_other(x, y, count):
    """Test images of digits 0 to 9 in turn."""
    places = [np.flatnonzero(y == digit)[: count // 10] for digit in range(10)]
    places = np.stack(places, axis=1).reshape(-1)
    return x[places], y[places]


def kernels(model):
    return [w.numpy() for w in model.trainable_variables if len(w.shape) > 1]


def predict(model, x):
    return model.predict(x, 1000, verbose=0).argmax(-1)


def mnist(limit):
    with np.load(DATA / "mnist.npz") as file:
        x = {k: v[..., None] / np.float32(255) for k, v in file.items() if "x" in k}
        y = {k: v.astype("int32") for k, v in file.items() if "y" in k}
    parts = ((x[f"x_{part}"][:limit], y[f"y_{part}"][:limit]) for part in ("train", "test"))
    return tuple(parts)


if __name__ == "__main__":
    main()
