"""The rows of pareto.py and how each is made; `world` there is its `World`, of one data set."""

import dataclasses
import itertools

import keras_robust as kr
from keras_robust._keras import keras

QUICK_ROWS = ("dense", "float16", "pruned 90%", "2 of 4", "pruned 90%, 16 values")


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a row is made: of the model of `parent`, by `make(world, model)`.

    `mode` is the .tflite file's, for rows that only such a file has.
    """

    parent: str | None
    make: object
    mode: str | None = None


def plans() -> dict:
    stages = kr.compress

    def prune(sparsity):
        # One threshold over all layers: the small first convolution keeps most of its weights.
        return stages.Prune(sparsity, scope="global")

    cluster, int8 = stages.Cluster, stages.Quantize("int8")
    sparse = stages.Quantize("int8", preserve=("sparsity",))
    kept = stages.Quantize("int8", preserve=("sparsity", "clusters"))
    return {
        "dense": Plan(None, trained),
        "float16": Plan("dense", same, "float16"),
        "dynamic range": Plan("dense", same, "dynamic"),
        "int16x8 after training": Plan("dense", same, "int16x8"),
        "int8 after training": Plan("dense", rounded),
        "int8": stage("dense", int8),
        "int8, one layer float": Plan("dense", mixed),
        "pruned 80%": stage("dense", prune(0.8)),
        "pruned 90%": stage("dense", prune(0.9)),
        "pruned 95%": stage("dense", prune(0.95)),
        "pruned 90% by layer": stage("dense", stages.Prune(0.9)),
        "pruned 90% by scores": stage("dense", stages.PruneByScores(0.9)),
        "80% of 4x4 blocks": stage("dense", stages.Prune(0.8, block=(4, 4))),
        "2 of 4": stage("dense", stages.Prune(0.5, pattern=(2, 4))),
        "16 values": stage("dense", cluster(16)),
        "pruned 90%, 16 values": stage("pruned 90%", cluster(16)),
        "pruned 90%, 16 values, int8": stage("pruned 90%, 16 values", kept),
        "pruned 95%, 16 values": stage("pruned 95%", cluster(16)),
        "ticket of 10%": Plan(None, ticket),
        "half the units": stage("dense", stages.PruneNeurons(0.5)),
        "half, int8": stage("half the units", int8),
        "half, pruned 80%, 16 values": stage("half the units", prune(0.8), cluster(16)),
        "lasso": Plan("dense", lasso),
        "student": Plan("dense", student),
        "student, int8": stage("student", int8),
        "student, pruned 60%, 16 values": stage("student", prune(0.6), cluster(16)),
        "factorized": stage("dense", stages.Factorize(budget=0.25)),
        "factorized, pruned 80%, 16 values": stage("factorized", prune(0.8), cluster(16)),
        "low rank": Plan(None, low_rank),
        "separated": stage("dense", stages.Separate()),
        "separated, int8": stage("separated", int8),
        "binary": Plan("dense", binary),
        "4 values": stage("dense", cluster(4)),
        "2 of 4, int8": stage("2 of 4", sparse),
        "scores, 16 values": stage("pruned 90% by scores", cluster(16)),
        "ticket, 16 values": stage("ticket of 10%", cluster(16)),
        "lasso, int8": stage("lasso", int8),
        "lasso, pruned 80%, 16 values": stage("lasso", prune(0.8), cluster(16)),
    }


def stage(parent, *stages) -> Plan:
    """Stages of a recipe, each fine-tuned adversarially."""

    def make(world, model):
        for one in stages:
            model = tuned(world, model, one)
        return model

    return Plan(parent, make)


def tuned(world, model, one):
    steps = world.task.steps[1]
    recipe = kr.compress.Recipe([one])
    return recipe.run(
        model,
        world.batches(steps),
        fine_tune=attacked(world),
        epochs=1,
        optimizer=adam(one.learning_rate, steps),
        verbose=0,
    ).model


def same(world, model):
    return model


def rounded(world, model):
    return kr.compress.Quantize("int8").apply(model, world.some)


def mixed(world, model):
    """All but the layer in int8 that robust accuracy misses most when it has 4 bits."""
    attack = kr.attacks.PGD(world.task.eps, steps=10)
    found = kr.compress.sensitivity(model, world.some, world.labels, attack, bits=4)
    return tuned(world, model, kr.compress.Quantize(float_layers=found.most_sensitive(1)))


def trained(world, _):
    return from_scratch(world, kr.zoo.small_cnn(world.shape, seed=0))


def low_rank(world, _):
    """The dense network, but with a quarter of the rank between its first and last layer."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(32, 3, 2, "same", activation="relu"),
        kr.layers.LowRankConv2D(64, 3, 16, strides=2, padding="same", activation="relu"),
        keras.layers.Flatten(),
        kr.layers.LowRankDense(128, 32, activation="relu"),
        keras.layers.Dense(10),
    ]
    return from_scratch(world, sequential(world, layers))


def from_scratch(world, model):
    steps = world.task.steps[0]
    ramp = kr.training.Ramp(steps=steps // 10)
    trainer = attacked(world)(model, eps_ramp=ramp, attack_dtype="bfloat16")
    return fit(trainer, model, world, steps)


def ticket(world, _):
    """A tenth of the weights in two rounds, each from the first weights and as the student."""
    steps = world.task.steps[0] // 3
    tickets = kr.compress.find_ticket(
        kr.zoo.small_cnn(world.shape, seed=0),
        world.batches(steps),
        world.batches(1),
        iterations=steps,
        every=steps,
        rounds=2,
        rate=1 - 0.1**0.5,
        scope="global",
        fine_tune=attacked(world),
        optimizer=adam(2e-3, steps),
        verbose=0,
    )
    return tickets.trained(2)


def lasso(world, model):
    """Shrinks filters and units to zero, takes the zeros out, and trains what is left."""
    dense, model = model, keras.models.clone_model(model)
    model.set_weights(dense.get_weights())
    shrink = kr.training.ProximalGroupLasso(kr.layers.GroupLasso(world.task.lasso, scaled=True))
    # Momentum would revive groups that were just emptied.
    sgd = keras.optimizers.SGD(0.02)
    fit(attacked(world)(model), model, world, world.task.steps[0] // 5, sgd, [shrink])
    model = kr.compress.remove_dead(model)
    steps = world.task.steps[1]
    return fit(attacked(world)(model), model, world, steps, adam(1e-3, steps))


def binary(world, model):
    """Signs need more steps than a stage."""
    signs = kr.compress.binarize(model)
    fit(attacked(world)(signs), signs, world, world.task.steps[0] // 5)
    return kr.compress.freeze_binary(signs)


def student(world, teacher):
    """A network of some 25 thousand weights that learns from the dense one, attacked itself."""
    layers, seeds = keras.layers, itertools.count()

    def start():
        return {"kernel_initializer": keras.initializers.GlorotUniform(seed=next(seeds))}

    model = sequential(
        world,
        [
            layers.Conv2D(12, 3, 2, "same", activation="relu", **start()),
            layers.Conv2D(24, 3, 2, "same", activation="relu", **start()),
            layers.Flatten(),
            layers.Dense(16, "relu", **start()),
            layers.Dense(10, **start()),
        ],
    )
    trainer = kr.Distillation(model, teacher, 2.0, 0.9, world.attack(), method="rslad")
    steps = world.task.steps[0] // 3
    # At twice the rate, the dense network's, all of its few units may die.
    return fit(trainer, model, world, steps, adam(1e-3, steps))


def sequential(world, layers):
    first = [keras.Input(world.shape), keras.layers.Rescaling(2.0, -1.0)]
    return keras.Sequential([*first, *layers])


def attacked(world):
    """The trainer of a model, for `fit` and for `fine_tune`."""
    return lambda model, **settings: kr.AdversarialTraining(model, world.attack(), **settings)


def fit(trainer, model, world, steps, optimizer=None, callbacks=()):
    keras.utils.set_random_seed(0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer.compile(optimizer or adam(2e-3, steps), loss)
    trainer.fit(world.batches(steps), callbacks=list(callbacks), verbose=0)
    return model


def adam(rate, steps):
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))
