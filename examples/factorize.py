"""Low-rank and separated convolutions of an adversarially trained network: size against robustness.

python examples/factorize.py --quick     # a few steps, about twenty seconds
python examples/factorize.py             # 10,000 images of Fashion-MNIST, minutes on one core

As measured, 1,000 test images, whose intervals reach 3 points to either side (what it means is in
docs/low_rank_weights.md):

                                 clean %  PGD-20 %      bytes  mult-adds  condition
trained                             80.4      69.0  1,690,784  1,362,304        8.3
trained on                          81.3      70.5  1,690,784  1,362,304        9.1
budget 0.5                          80.1      68.6    842,664  1,150,208        8.3
budget 0.5, fine-tuned              81.1      70.4    842,664  1,150,208        9.2
budget 0.5, fine-tuned, penalty     80.5      70.3    842,664  1,150,208        9.1
budget 0.25                         79.6      67.7    424,872  1,045,760        8.3
budget 0.25, fine-tuned             80.6      67.5    424,872  1,045,760        9.2
budget 0.25, fine-tuned, penalty    80.6      69.7    424,872  1,045,760        9.1
separated                           45.5      20.5  1,626,960    573,600       18.0
separated, fine-tuned               79.3      65.7  1,626,960    573,600       19.1
"""

import argparse
import json
import pathlib
import tempfile

import numpy as np
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras

EPS = 0.1
PENALTY = 0.03
HEAD = f"{'':32}{'clean %':>8}{'PGD-20 %':>10}{'bytes':>11}{'mult-adds':>11}{'condition':>11}"


def main(arguments=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="little data, one epoch")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file for the numbers")
    options = parser.parse_args(arguments)
    data = kr.data.load("embedded", batch_size=128, limit=256 if options.quick else 10_000)
    test = next(iter(kr.data.load("embedded", batch_size=100 if options.quick else 1000).test))
    epochs, few = (1, 1) if options.quick else (10, 3)
    budgets, penalties = ([0.25], [PENALTY]) if options.quick else ([0.5, 0.25], [0.0, PENALTY])

    rows = {}
    print(HEAD, flush=True)
    model = kr.zoo.small_cnn(seed=0)
    train(model, data.train, epochs, 1e-3)
    report(rows, "trained", model, test)
    if not options.quick:  # As long as the others below.
        longer = copy(model)
        train(longer, data.train, few, 5e-4)
        report(rows, "trained on", longer, test)
    for budget in budgets:
        report(rows, f"budget {budget:g}", kr.compress.Factorize(budget=budget).apply(model), test)
        for penalty in penalties:
            small = kr.compress.Factorize(budget=budget, penalty=penalty).apply(model)
            train(small, data.train, few, 5e-4)
            kind = "fine-tuned, penalty" if penalty else "fine-tuned"
            report(rows, f"budget {budget:g}, {kind}", small, test)
    small = kr.compress.Separate().apply(model)
    report(rows, "separated", small, test)
    if not options.quick:
        train(small, data.train, few, 5e-4)
        report(rows, "separated, fine-tuned", small, test)
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1))
    return rows


def train(model, dataset, epochs, learning_rate) -> None:
    """Adversarial training against PGD-7."""
    keras.utils.set_random_seed(1)
    trainer = kr.AdversarialTraining(model, kr.attacks.PGD(EPS, steps=7))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer.compile(keras.optimizers.Adam(learning_rate), loss)
    trainer.fit(dataset, epochs=epochs, verbose=0)


def report(rows, name, model, test) -> None:
    """Measures a model, and prints and keeps its row."""
    x, y = test
    attacked = tf.function(kr.attacks.PGD(EPS, steps=20))(model, x, y, seed=0)
    clean, robust = (100 * np.mean(np.argmax(model(z), -1) == y) for z in (x, attacked))
    with tempfile.TemporaryDirectory() as folder:
        exported = kr.export.tflite(model, pathlib.Path(folder) / "model.tflite", check=x[:32])
    condition = kr.analysis.condition_numbers(model)
    row = {
        "clean": round(float(clean), 1),
        "robust": round(float(robust), 1),
        "bytes": exported.bytes,
        "multiply_adds": kr.compress.count(model).multiply_adds,
        "condition": {row["layer"]: row["condition"] for row in condition.rows},
    }
    rows[name] = row
    print(
        f"{name:32}{row['clean']:8.1f}{row['robust']:10.1f}{row['bytes']:11,}"
        f"{row['multiply_adds']:11,}{max(row['condition'].values()):11.1f}",
        flush=True,
    )


def copy(model):
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    return twin


if __name__ == "__main__":
    main()
