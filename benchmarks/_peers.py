"""The peers that run on TensorFlow: which are here, and steps of training with them.

Each is imported only here and only when it is asked for. `pip install` lines: README.md.
"""

import importlib
import sys
import types

import numpy as np
import tensorflow as tf
from _steps import Fit
from _tf_peers import art_classifier, nsl_config, nsl_neighbors

from keras_robust._keras import LEGACY, keras

MODULES = {
    "ART": "art.attacks.evasion",
    "Foolbox": "foolbox",
    "CleverHans": "cleverhans.tf2.attacks.projected_gradient_descent",
    "NSL": "neural_structured_learning",
}
# Parts of peers that the others here can do without, and that TensorFlow's API of today breaks.
BROKEN = ("neural_structured_learning.estimator",)


def available(wanted=True) -> tuple[list[str], dict[str, str]]:
    """Names of the peers that can be imported, and why the others can not."""
    found, missing = [], {}
    for module in BROKEN:
        sys.modules.setdefault(module, types.ModuleType(module))
    for name, module in MODULES.items():
        if not wanted:
            missing[name] = "--no-peers"
            continue
        try:
            importlib.import_module(module)
        except ImportError as error:
            missing[name] = f"{type(error).__name__}: {error}"
        else:
            found.append(name)
    return found, missing


def training(peer, x, y, make, attack_steps, eps, step_size) -> dict:
    """Name -> function of a number of steps that trains with `peer`.

    Args:
        x, y: numpy, a few batches of images and labels.
        make: `() -> (model, optimizer, compiled step (x, y))`.
    """
    maker = {
        "ART": _art_training,
        "Foolbox": _foolbox_training,
        "CleverHans": _ch_training,
        "NSL": _nsl_training,
    }[peer]
    return maker(x, y, make, attack_steps, eps, step_size)


def _art_training(x, y, make, attack_steps, eps, step_size):
    from art.attacks.evasion import ProjectedGradientDescent
    from art.defences.trainer import AdversarialTrainer, AdversarialTrainerMadryPGD

    batch = 128
    model, optimizer, _ = make()
    settings = {"eps": eps, "eps_step": step_size, "max_iter": attack_steps, "num_random_init": 1}
    usual = AdversarialTrainerMadryPGD(
        art_classifier(model, optimizer), batch_size=batch, nb_epochs=1, **settings
    )
    model, optimizer, step = make()
    classifier = art_classifier(
        model, optimizer, lambda model, images, labels: step(images, labels)
    )
    pgd = ProjectedGradientDescent(classifier, batch_size=batch, verbose=False, **settings)
    best = AdversarialTrainer(classifier, pgd, ratio=1.0)

    def run_usual(steps):
        usual.fit(x[: steps * batch], y[: steps * batch])

    def run_best(steps):
        best.fit(x[: steps * batch], y[: steps * batch], batch_size=batch, nb_epochs=1)

    return {
        "ART AdversarialTrainerMadryPGD": run_usual,
        "ART AdversarialTrainer, attack batch 128, compiled train step": run_best,
    }


def _foolbox_training(x, y, make, attack_steps, eps, step_size):
    import foolbox as fb

    model, _, step = make()
    view = fb.TensorFlowModel(model, bounds=(0, 1))
    pgd = fb.attacks.LinfPGD(abs_stepsize=step_size, steps=attack_steps, random_start=True)
    images, labels = tf.constant(x[:128]), tf.constant(y[:128])

    def run(steps):
        for _ in range(steps):
            # `run` and not a call: without the check of success, which training does not need.
            step(pgd.run(view, images, labels, epsilon=eps), labels)

    return {"Foolbox LinfPGD + compiled train step": run}


def _ch_training(x, y, make, attack_steps, eps, step_size):
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

    model, _, step = make()
    images, labels = tf.constant(x[:128]), tf.constant(y[:128])
    settings = {"norm": np.inf, "clip_min": 0.0, "clip_max": 1.0, "rand_init": True}

    def run(steps):
        for _ in range(steps):
            x_adv = projected_gradient_descent(
                model, images, eps, step_size, attack_steps, y=labels, **settings
            )
            step(x_adv, labels)

    return {"CleverHans PGD + compiled train step": run}


def _nsl_training(x, y, make, attack_steps, eps, step_size):
    batch = 128
    settings = (attack_steps, eps, step_size, "infinity")
    model, _, step = make()
    images, labels = tf.constant(x[:batch]), tf.constant(y[:batch])

    @tf.function
    def both(images, labels):
        step(nsl_neighbors(model, images, labels, *settings), labels)

    def run_best(steps):
        for _ in range(steps):
            both(images, labels)

    found = {"NSL gen_adv_neighbor and train step in one tf.function": run_best}
    if not LEGACY:
        return found  # Its wrapper asks a model for what Keras 3 has no more.

    from neural_structured_learning.keras import AdversarialRegularization

    model, optimizer, _ = make()
    (name,) = model.input_names
    wrapped = AdversarialRegularization(model, adv_config=nsl_config(*settings, name=name))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    wrapped.compile(optimizer, loss)
    data = tf.data.Dataset.from_tensor_slices({name: x, "label": y})
    data = data.batch(batch, drop_remainder=True)  # Its random start must know the size.
    name = "NSL AdversarialRegularization, fit; clean loss too"
    return found | {name: Fit(wrapped, data.repeat())}
