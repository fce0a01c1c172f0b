"""The peers, called as their documentation says: attacks, and steps of training.

Each is imported only here and only when it is asked for. `pip install` lines: README.md.
"""

import importlib

import numpy as np
import tensorflow as tf

from keras_robust._keras import keras

MODULES = {
    "ART": "art.attacks.evasion",
    "Foolbox": "foolbox",
    "CleverHans": "cleverhans.tf2.attacks.projected_gradient_descent",
}
SPARSE = "Foolbox SparseL1Descent"
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


def available(wanted=True) -> tuple[list[str], dict[str, str]]:
    """Names of the peers that can be imported, and why the others can not."""
    found, missing = [], {}
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


def art_classifier(model, optimizer=None, train_step=None):
    """ART's view of a Keras model with logits."""
    from art.estimators.classification import TensorFlowV2Classifier

    return TensorFlowV2Classifier(
        model=model,
        nb_classes=model.output_shape[-1],
        input_shape=tuple(model.input_shape[1:]),
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=optimizer,
        train_step=train_step,
        clip_values=(0.0, 1.0),
    )


def attack(peer, model, norm, eps, step_size=None, steps=1, restarts=1, batch=128):
    """A function `(x, y) -> x_adv` of numpy arrays; None where the peer has no such attack.

    `step_size=None` is the fast gradient method: one step of eps without random start.
    """
    maker = {"ART": _art, "Foolbox": _foolbox, "CleverHans": _cleverhans, SPARSE: _sparse}[peer]
    return maker(model, norm, eps, step_size, steps, restarts, batch)


def _art(model, norm, eps, step_size, steps, restarts, batch):
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent

    common = {"norm": ORDER[norm], "eps": eps, "batch_size": batch}
    if step_size is None:
        made = FastGradientMethod(art_classifier(model), **common)
    else:
        made = ProjectedGradientDescent(
            art_classifier(model),
            eps_step=step_size,
            max_iter=steps,
            num_random_init=restarts,
            verbose=False,
            **common,
        )
    return lambda x, y: made.generate(x, y=y)


def _foolbox(model, norm, eps, step_size, steps, restarts, batch):
    import foolbox as fb

    view = fb.TensorFlowModel(model, bounds=(0, 1))
    if step_size is None:
        kind = {
            "linf": fb.attacks.LinfFastGradientAttack,
            "l2": fb.attacks.L2FastGradientAttack,
            "l1": fb.attacks.L1FastGradientAttack,
        }[norm]
        made = kind()
    else:
        kind = {
            "linf": fb.attacks.LinfProjectedGradientDescentAttack,
            "l2": fb.attacks.L2ProjectedGradientDescentAttack,
            "l1": fb.attacks.L1ProjectedGradientDescentAttack,
        }[norm]
        made = kind(abs_stepsize=step_size, steps=steps, random_start=True)
    return _foolbox_run(view, made, eps, restarts)


def _sparse(model, norm, eps, step_size, steps, restarts, batch):
    """Foolbox's other l1 attack, of Tramer and Boneh 2019: steps on the top 1% of pixels."""
    if norm != "l1" or step_size is None:
        return None
    import foolbox as fb

    view = fb.TensorFlowModel(model, bounds=(0, 1))
    made = fb.attacks.SparseL1DescentAttack(abs_stepsize=step_size, steps=steps, random_start=True)
    return _foolbox_run(view, made, eps, restarts)


def _foolbox_run(view, made, eps, restarts):
    if restarts > 1:
        made = made.repeat(restarts)

    def run(x, y):
        # int64 as its own argmax gives: eagerpy 0.30 cannot join two dtypes under NumPy 2.
        _, clipped, _ = made(view, tf.constant(x), tf.constant(y, tf.int64), epsilons=eps)
        return clipped.numpy()

    return run


def _cleverhans(model, norm, eps, step_size, steps, restarts, batch):
    from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

    common = {"norm": ORDER[norm], "clip_min": 0.0, "clip_max": 1.0}
    if restarts > 1 or (norm == "l1" and step_size is not None):
        return None  # It has no restarts, and refuses l1.

    def run(x, y):
        x, y = tf.constant(x), tf.constant(y)
        if step_size is None:
            return fast_gradient_method(model, x, eps, y=y, **common).numpy()
        return projected_gradient_descent(
            model, x, eps, step_size, steps, y=y, rand_init=True, **common
        ).numpy()

    return run


def training(peer, x, y, make, attack_steps, eps, step_size) -> dict:
    """Name -> function of a number of steps that trains with `peer`.

    Args:
        x, y: numpy, a few batches of images and labels.
        make: `() -> (model, optimizer, compiled step (x, y))`.
    """
    maker = {"ART": _art_training, "Foolbox": _foolbox_training, "CleverHans": _ch_training}[peer]
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
