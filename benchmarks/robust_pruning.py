"""Ways to prune an adversarially trained LeNet-300-100, by clean and robust accuracy.

TF_USE_LEGACY_KERAS=1 python benchmarks/robust_pruning.py --output rows.json

Fashion-MNIST's embedded subset (12,000 images), PGD-5 in training and PGD-20 on the 2,000 test
images, eps 0.1; 15 epochs dense, then 10 epochs for each way to prune, with the same attack. One
run each. Rows in the file are not made again; other settings than theirs are refused.

With `--until` instead: pruning until two points of robust accuracy are spent on a tenth of the
training images that is held out, a fifth of what is left in each round of two epochs.
"""

import argparse
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import NAME, keras
from keras_robust.compress._masks import find_kernels, value_of
from keras_robust.compress._seeds import seeded

ATTACK = kr.attacks.PGD(eps=0.1, steps=5)
JUDGE = kr.attacks.PGD(eps=0.1, steps=20)
METHODS = ("magnitude at once", "magnitude", "magnitude, global", "scores", "scores, rate 0.3")
MOST_LOSS = 0.02
SHARES = {"dense1": 0.9936, "dense2": 0.97, "logits": 0.75}  # 99.0% of all kernels


def main(arguments=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("robust_pruning.json"))
    parser.add_argument("--sparsity", type=float, nargs="*", default=[0.95, 0.99])
    parser.add_argument("--epochs", type=int, nargs=2, default=[15, 10], help="dense, pruned")
    parser.add_argument("--limit", type=int, help="at most so many images")
    parser.add_argument("--until", action="store_true", help="until a budget is spent")
    parser.add_argument("--rounds", type=int, default=30, help="of pruning until, at most")
    options = parser.parse_args(arguments)
    data = kr.data.load("embedded", batch_size=128, limit=options.limit)
    settings = {"keras": NAME, "epochs": options.epochs, "limit": options.limit}
    settings["until"] = options.until
    rows = json.loads(options.output.read_text()) if options.output.exists() else settings
    if {name: rows.get(name) for name in settings} != settings:
        parser.error(f"--output {options.output} holds rows of other settings: name another file.")
    if options.until:
        return until(data, rows, options)
    dense = None
    wanted = [(f"{s:g} {method}", s, method) for s in options.sparsity for method in METHODS]
    # One share for all layers leaves ten weights before the logits at 99%.
    wanted += [(f"0.99 by layer {m}", SHARES, m) for m in METHODS if "global" not in m]
    for name, sparsity, method in [("dense", 0.0, "dense"), *wanted]:
        if name in rows:
            continue
        dense = pretrained(data.train, options.epochs[0]) if dense is None else dense
        model = pruned(method, sparsity, dense, data, options.epochs[1])
        keep(rows, name, measure(model, data), options)
    return rows


def keep(rows, name, row, options):
    rows[name] = row
    print(name, row, flush=True)
    options.output.write_text(json.dumps(rows, indent=1))


def until(data, rows, options) -> dict:
    """Rounds of `prune_until` and of a recipe, the dense net trained without what is held out."""
    # The order of `data.train` is another one in each epoch: parts of it would change places.
    images = kr.data.load("embedded", batch_size=None, limit=options.limit).train
    arrays = [np.stack(part) for part in zip(*images.as_numpy_iterator())]
    held_out = len(arrays[1]) // 10
    parts = [[part[:held_out] for part in arrays], [part[held_out:] for part in arrays]]
    validation, rest = (tf.data.Dataset.from_tensor_slices(tuple(part)) for part in parts)
    rest = rest.shuffle(len(arrays[1]), seed=0).batch(128, drop_remainder=True)
    validation = validation.batch(128)
    dense = pretrained(rest, options.epochs[0])
    keep(rows, "dense", measure(dense, data), options)
    stages = {
        "by layer": kr.compress.Prune(0.999),
        "global": kr.compress.Prune(0.999, scope="global"),
        "units, APoZ": kr.compress.PruneNeurons(0.1),
    }
    for name, stage in stages.items():
        run = kr.compress.prune_until(
            dense,
            rest,
            validation,
            stage=stage,
            metric="robust_accuracy",
            most_loss=MOST_LOSS,
            epochs=2,
            rounds=options.rounds,
            fine_tune=trainer,
        )
        row = {**measure(run.model, data), "weights": run.model.count_params()}
        keep(rows, name, {**row, "kept %": round(100 * run.kept, 2), **run.to_dict()}, options)
    budget = kr.compress.Budget(MOST_LOSS, "robust_accuracy")
    made = kr.compress.Recipe([kr.compress.Prune(0.999, until=budget)]).run(
        dense,
        rest,
        fine_tune=trainer,
        validation_data=validation,
        epochs=2 * options.epochs[1],
        verbose=0,
    )
    row = {**measure(made.model, data), "stage": made.stages[0].to_dict()}
    keep(rows, "in a recipe", row, options)
    return rows


def pretrained(dataset, epochs):
    model = kr.zoo.lenet_300_100()
    train(model, dataset, epochs)
    return model


def pruned(method, sparsity, dense, data, epochs):
    if method == "dense":
        return dense
    if method == "magnitude at once":
        model = kr.compress.keep_zeros(kr.compress.Prune(sparsity).apply(dense))
        train(model, data.train, epochs)
        return model
    if method.startswith("magnitude"):
        stage = kr.compress.Prune(sparsity, scope="global" if "global" in method else "layer")
        recipe = kr.compress.Recipe([stage])
        made = recipe.run(dense, data.train, fine_tune=trainer, epochs=epochs, verbose=0)
        return made.model
    stage = kr.compress.PruneByScores(sparsity, rate=0.3 if "0.3" in method else 1.0)
    return stage.apply(dense, data.train, fine_tune=trainer, epochs=epochs)


def trainer(model):
    return kr.AdversarialTraining(model, ATTACK)


def train(model, dataset, epochs):
    with seeded(0):
        training = trainer(model)
        training.compile(keras.optimizers.Adam(1e-3), metrics=["accuracy"])
        training.fit(dataset, epochs=epochs, verbose=0)


def measure(model, data) -> dict:
    judge = kr.AdversarialTraining(model, JUDGE)
    judge.compile("sgd", metrics=["accuracy"])
    found = judge.evaluate(data.test, verbose=0, return_dict=True)
    weights = np.concatenate([value_of(v).ravel() for v in find_kernels(model).values()])
    return {
        "clean %": round(100 * found["accuracy"], 2),
        "robust %": round(100 * found["robust_accuracy"], 2),
        "zeros %": round(100 * float(np.mean(weights == 0)), 2),
    }


if __name__ == "__main__":
    main()
