"""Networks trained on the same images by everybody's PGD-7: are they equally robust?

The same initial weights, batches in the same order and Adam; only who makes the adversarial
examples differs, and the random starts. Judged by one attack, PGD-20 with two restarts.
"""

import _steps
import _tf_peers
import numpy as np
import tensorflow as tf
from _contests import Contest

import keras_robust as kr

STEPS = 7


def same_images(train, test, peers, epochs, seeds) -> list[dict]:
    """A row for each way of training: accuracies in percent, one for each seed.

    Args:
        train, test: of `kr.data.Data`.
        peers: names of those at hand.
        epochs: over the training images.
        seeds: of initial weights and random starts.
    """
    x, y = kr.data.arrays(test, limit=1000)
    judge = kr.attacks.PGD(eps=_steps.EPS, steps=20, restarts=2)
    ways = {
        "natural training": _natural,
        "by hand, one tf.function": _by_hand,
        "AdversarialTraining, fit": _ours,
        "AdversarialTraining, fit, attack_dtype bfloat16": _ours_half,
    } | {f"{peer}'s examples": _with(peer) for peer in peers}
    rows = []
    for name, way in ways.items():
        row = {"name": name, "images": 0, "clean": [], "robust": []}
        for seed in seeds:
            model = kr.zoo.small_cnn(seed=seed)
            batches = [batch for _ in range(epochs) for batch in train]
            way(model, batches, seed)
            row["images"] = sum(len(labels) for _, labels in batches)
            for key, inputs in (("clean", x), ("robust", judge(model, x, y, seed=0))):
                right = np.argmax(model.predict(inputs, batch_size=500, verbose=0), 1) == y
                row[key].append(round(100 * float(np.mean(right)), 1))
        rows.append(row)
    return rows


def peer_pgd(peer, model):
    """The peer's PGD-7 as a function `(x, y) -> x_adv` of numpy arrays."""
    budget = {"steps": STEPS, "step_size": _steps.step_size(STEPS), "restarts": 1}
    pgd = Contest("pgd", "PGD-7", "linf", _steps.EPS, budget, batch=_steps.BATCH)
    return _tf_peers.make(peer, model, pgd)


def _natural(model, batches, seed):
    _loop(model, batches, lambda x, y: x)


def _by_hand(model, batches, seed):
    generator = tf.random.Generator.from_seed(seed)

    @tf.function
    def examples(x, y):
        return _steps.plain_examples(model, x, y, STEPS, generator)

    _loop(model, batches, examples)


def _ours(model, batches, seed, **settings):
    attack = kr.attacks.PGD(eps=_steps.EPS, steps=STEPS)
    trainer = _steps.compiled(kr.AdversarialTraining(model, attack, seed=seed, **settings))
    x, y = (tf.concat(parts, 0) for parts in zip(*batches, strict=True))
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(_steps.BATCH)
    trainer.fit(data, shuffle=False, verbose=0)


def _ours_half(model, batches, seed):
    _ours(model, batches, seed, attack_dtype="bfloat16")


def _with(peer):
    """The peer's PGD before a compiled step."""

    def train(model, batches, seed):
        # What they draw from: global generators, which a benchmark may seed.
        np.random.seed(seed)
        tf.random.set_seed(seed)
        attack = peer_pgd(peer, model)
        _loop(model, batches, lambda x, y: attack(x.numpy(), y.numpy()))

    return train


def _loop(model, batches, examples):
    model, optimizer = _steps.model_and_optimizer(make=lambda: model)

    @tf.function
    def step(x, y):
        _steps.update(model, optimizer, lambda: _steps.cross_entropy(y, model(x, training=True)))

    for x, y in batches:
        step(tf.convert_to_tensor(examples(x, y)), y)
