"""The attacks of ART, Foolbox, CleverHans and NSL, called as their documentation says.

`make(peer, model, contest)` gives a function of numpy arrays `(x, y) -> x_adv`, or None where
the peer has no such attack. Each peer is imported only where it is asked for.
"""

import numpy as np
import tensorflow as tf

from keras_robust._keras import LEGACY, keras

SPARSE = "Foolbox SparseL1Descent"
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


def make(peer, model, contest):
    """A function `(x, y) -> x_adv`, or None."""
    maker = {
        "ART": _art,
        "Foolbox": _foolbox,
        "CleverHans": _cleverhans,
        "NSL": _nsl,
        SPARSE: _sparse,
    }[peer]
    return maker(model, contest)


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


def _art(model, contest):
    from art.attacks import evasion

    budget, steps = contest.budget, contest.budget.get("steps")
    quiet = {"batch_size": contest.batch, "verbose": False}
    ball = {"norm": ORDER.get(contest.norm), "eps": contest.eps}
    view = art_classifier(model)
    if contest.kind == "fgsm":
        made = evasion.FastGradientMethod(view, **ball, batch_size=contest.batch)
    elif contest.kind == "pgd":
        made = evasion.ProjectedGradientDescent(
            view,
            **ball,
            **quiet,
            eps_step=budget["step_size"],
            max_iter=steps,
            num_random_init=budget["restarts"],
        )
    elif contest.kind == "apgd":
        loss = {"ce": "cross_entropy", "dlr": "difference_logits_ratio"}[budget["loss"]]
        made = evasion.AutoProjectedGradientDescent(
            view,
            **ball,
            **quiet,
            eps_step=2 * contest.eps,
            max_iter=steps,
            nb_random_init=1,
            loss_type=loss,
        )
    elif contest.kind == "square":
        made = evasion.SquareAttack(view, **ball, **quiet, max_iter=budget["queries"])
    else:
        made = _art_search(view, contest, quiet)
    return made and (lambda x, y: made.generate(x, y=y))


def _art_search(view, contest, quiet):
    from art.attacks import evasion

    budget = contest.budget
    if contest.kind == "deepfool" and contest.norm == "l2":
        return evasion.DeepFool(
            view,
            **quiet,
            max_iter=budget["steps"],
            epsilon=budget["overshoot"],
            nb_grads=budget["candidates"],
        )
    if contest.kind in ("cw", "ead"):
        search = {
            "max_iter": budget["steps"],
            "binary_search_steps": budget["search_steps"],
            "learning_rate": budget["rate"],
            "initial_const": budget["start"],
        }
        if contest.kind == "cw":
            return evasion.CarliniL2Method(view, **quiet, **search)
        return evasion.ElasticNet(view, **quiet, **search, beta=budget["beta"], decision_rule="L1")
    if contest.kind == "hsj":
        return evasion.HopSkipJump(
            view, **quiet, norm=2, max_iter=budget["steps"], max_eval=budget["most"]
        )
    if contest.kind == "spatial":
        # In percent of the side; one transformation for the whole batch.
        return evasion.SpatialTransformation(
            view,
            max_translation=100 * budget["shift"] / view.input_shape[0],
            num_translations=budget["shifts"],
            max_rotation=budget["angle"],
            num_rotations=budget["angles"],
            verbose=False,
        )
    return None


def _foolbox(model, contest):
    from foolbox import attacks

    kind, norm, budget = contest.kind, contest.norm, contest.budget
    family = {"linf": "Linf", "l2": "L2", "l1": "L1"}.get(norm)
    if kind == "fgsm":
        made = getattr(attacks, f"{family}FastGradientAttack")()
    elif kind == "pgd":
        made = getattr(attacks, f"{family}ProjectedGradientDescentAttack")(
            abs_stepsize=budget["step_size"], steps=budget["steps"], random_start=True
        )
        made = made.repeat(budget["restarts"]) if budget["restarts"] > 1 else made
    elif kind == "mifgsm":
        made = attacks.LinfMomentumIterativeFastGradientMethod(
            abs_stepsize=contest.eps / budget["steps"], steps=budget["steps"]
        )
    else:
        made = _foolbox_search(contest, family)
    return made and _foolbox_run(model, made, contest.eps)


def _foolbox_search(contest, family):
    from foolbox import attacks

    budget = contest.budget
    if contest.kind == "deepfool":
        return getattr(attacks, f"{family}DeepFoolAttack")(**budget)
    if contest.kind in ("cw", "ead"):
        search = {"steps": budget["steps"], "binary_search_steps": budget["search_steps"]}
        search["initial_const"] = budget["start"]
        if contest.kind == "cw":
            return attacks.L2CarliniWagnerAttack(stepsize=budget["rate"], **search)
        return attacks.EADAttack(
            initial_stepsize=budget["rate"],
            regularization=budget["beta"],
            decision_rule="L1",
            **search,
        )
    if contest.kind == "hsj":
        return attacks.HopSkipJumpAttack(
            steps=budget["steps"], max_gradient_eval_steps=budget["most"]
        )
    if contest.kind == "spatial":
        return attacks.SpatialAttack(
            max_translation=budget["shift"],
            max_rotation=budget["angle"],
            num_translations=budget["shifts"],
            num_rotations=budget["angles"],
        )
    return None


def _sparse(model, contest):
    """Foolbox's other l1 attack, of Tramer and Boneh 2019: steps on the top 1% of pixels."""
    if contest.norm != "l1" or contest.kind != "pgd":
        return None
    from foolbox import attacks

    budget = contest.budget
    made = attacks.SparseL1DescentAttack(
        abs_stepsize=budget["step_size"], steps=budget["steps"], random_start=True
    )
    made = made.repeat(budget["restarts"]) if budget["restarts"] > 1 else made
    return _foolbox_run(model, made, contest.eps)


def _foolbox_run(model, made, eps):
    import foolbox

    view = foolbox.TensorFlowModel(model, bounds=(0, 1))
    # Spatial attacks know no epsilon at all.
    size = {} if isinstance(made, foolbox.attacks.SpatialAttack) else {"epsilons": eps}

    def run(x, y):
        # int64 as its own argmax gives: eagerpy 0.30 cannot join two dtypes under NumPy 2.
        raw, clipped, _ = made(view, tf.constant(x), tf.constant(y, tf.int64), **size)
        return (raw if eps is None else clipped).numpy()

    return run


def _cleverhans(model, contest):
    kind, budget = contest.kind, contest.budget
    if budget.get("restarts", 1) > 1 or (contest.norm == "l1" and kind == "pgd"):
        return None  # It has no restarts, and refuses l1.
    maker = {"fgsm": _ch_fgsm, "pgd": _ch_pgd, "mifgsm": _ch_mifgsm, "cw": _ch_cw}.get(kind)
    return maker and maker(model, contest)


def _ch_common(contest):
    return {"norm": ORDER[contest.norm], "clip_min": 0.0, "clip_max": 1.0}


def _ch_fgsm(model, contest):
    from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method

    common = _ch_common(contest)
    return lambda x, y: fast_gradient_method(
        model, tf.constant(x), contest.eps, y=tf.constant(y), **common
    ).numpy()


def _ch_pgd(model, contest):
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

    common, budget = _ch_common(contest), contest.budget
    return lambda x, y: projected_gradient_descent(
        model,
        tf.constant(x),
        contest.eps,
        budget["step_size"],
        budget["steps"],
        y=tf.constant(y),
        rand_init=True,
        **common,
    ).numpy()


def _ch_mifgsm(model, contest):
    from cleverhans.tf2.attacks.momentum_iterative_method import momentum_iterative_method

    common, steps = _ch_common(contest), contest.budget["steps"]
    return lambda x, y: momentum_iterative_method(
        model,
        tf.constant(x),
        eps=contest.eps,
        eps_iter=contest.eps / steps,
        nb_iter=steps,
        y=tf.constant(y),
        **common,
    ).numpy()


def _ch_cw(model, contest):
    if not LEGACY:
        return None  # It calls its optimizer's `variables`, which Keras 3 made a list.
    from cleverhans.tf2.attacks.carlini_wagner_l2 import carlini_wagner_l2

    budget = contest.budget
    search = {
        "max_iterations": budget["steps"],
        "binary_search_steps": budget["search_steps"],
        "learning_rate": budget["rate"],
        "initial_const": budget["start"],
        "batch_size": contest.batch,
    }
    return lambda x, y: np.asarray(
        carlini_wagner_l2(model, tf.constant(x), y=tf.constant(y), **search)
    )


def nsl_config(steps, eps, step_size, norm, name=""):
    """NSL's settings of PGD; `name` is that of the model's input where features are named."""
    import neural_structured_learning as nsl

    return nsl.configs.make_adv_reg_config(
        multiplier=1.0,
        adv_step_size=step_size,
        adv_grad_norm=norm,
        clip_value_min={name: 0.0},
        clip_value_max={name: 1.0},
        pgd_iterations=steps,
        pgd_epsilon=eps,
        random_init=True,
    )


def nsl_neighbors(model, x, y, steps, eps, step_size, norm):
    """NSL's adversarial neighbours of a batch, for code that is being traced."""
    import neural_structured_learning as nsl

    found, _ = nsl.lib.gen_adv_neighbor(
        x,
        tf.constant(0.0),  # With a random start it is not looked at.
        nsl_config(steps, eps, step_size, norm).adv_neighbor_config,
        pgd_model_fn=lambda x: model(x, training=False),
        pgd_loss_fn=lambda y, logits: tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        ),
        pgd_labels=y,
        use_while_loop=True,
    )
    return tf.stop_gradient(found)


def _nsl(model, contest):
    budget = contest.budget
    if contest.kind != "pgd" or contest.norm == "l1" or budget["restarts"] > 1:
        return None  # It has no restarts, and refuses l1.
    norm = {"linf": "infinity", "l2": "l2"}[contest.norm]

    @tf.function  # Its random start needs to know the size of the batch.
    def run(x, y):
        settings = (budget["steps"], contest.eps, budget["step_size"], norm)
        return nsl_neighbors(model, x, y, *settings)

    return lambda x, y: run(tf.constant(x), tf.constant(y)).numpy()
