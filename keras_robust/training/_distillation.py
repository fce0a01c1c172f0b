"""Distillation as a Keras model around the student."""

from keras_robust.training._adversarial import AdversarialTraining
from keras_robust.training.objectives import Distil


class Distillation(AdversarialTraining):
    """Trains `student` on its teachers' softened predictions, through `compile` and `fit`.

    Hinton, Vinyals and Dean 2015, https://arxiv.org/abs/1503.02531, and with an attack the robust
    forms that `kr.objectives.Distil` lists. All else is as in `kr.AdversarialTraining`: the
    student is trained in place, `save` saves it plain, `fit(resume=...)` goes on after a stop.
    The compiled loss is the hard term, its labels the true ones; the student is used at
    temperature 1. Without an attack no robust accuracy is logged.

    A student of a robust teacher is best judged by `kr.evaluate`, which attacks its logits: a
    network trained at a high temperature hides its gradients in the softmax alone.

    Args:
        student: Keras model that returns logits; it is trained in place.
        teachers: model or list of models that return logits; their weights are left alone. Or
            "stored": `fit` gets a dataset made by `kr.training.with_logits`, which holds what
            they said of each image.
        temperature: T > 0; 2.5 to 4 for small students, up to 20 for large ones.
        alpha: share of the soft term, in [0, 1]; the rest is the compiled loss.
        attack: an attack with an eps for robust distillation, or None.
        method: "ard", "rslad" or "iad", with an attack; None means "ard".
        mean: "arithmetic" or "geometric" mean of several teachers' distributions.
        weights: one a teacher, >= 0; None weighs them alike.
        trust: of "iad".
        **kwargs: as for `kr.AdversarialTraining`: eps_ramp, validation_attack, seed, name, ...

    Raises:
        TypeError: not a Keras model, or one of the other Keras.
        ValueError: a model that ends in softmax, a student that is its own teacher, teachers of
            other classes, a `method` without an attack, a setting out of its range.

    >>> make = lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> trainer = kr.Distillation(make(), teachers=[make()], temperature=4.0, alpha=0.9)
    >>> trainer.compile("adam", metrics=["accuracy"])
    >>> x, y = np.random.default_rng(0).uniform(size=(8, 4)).astype("float32"), np.arange(8) % 3
    >>> sorted(trainer.fit(x, y, verbose=0).history)
    ['accuracy', 'loss']
    """

    _needs_attack = False

    def __init__(
        self,
        student,
        teachers,
        temperature=4.0,
        alpha=0.9,
        attack=None,
        *,
        method=None,
        mean="arithmetic",
        weights=None,
        trust=0.1,
        **kwargs,
    ):
        attacked = attack is not None
        if method is not None and not attacked:
            raise ValueError(
                f"`method`={method!r} is a way to distil under an `attack`, got none. Give one, "
                "such as attack=kr.attacks.PGD(eps=8 / 255), or leave `method` out."
            )
        method = "ard" if method is None else method
        objective = Distil(teachers, temperature, alpha, method, mean, weights, trust, attacked)
        super().__init__(student, attack, objective, **kwargs)
        if any(_is_same(teacher, student) for teacher in objective.teachers):
            raise ValueError(
                "`teachers` holds the student itself, which would follow its own every step. For "
                "self-distillation train a clone with new weights, "
                "kr.Distillation(keras.models.clone_model(model), teachers=[model]), or give a "
                "copy as teacher: copy = keras.models.clone_model(student); "
                "copy.set_weights(student.get_weights())."
            )
        for index, teacher in enumerate(objective.teachers):
            _check_classes(student, teacher, f"teachers[{index}]")


def _is_same(teacher, student) -> bool:
    """Whether both are one network, perhaps behind another model object."""
    if teacher is student:
        return True
    if not (student.built and getattr(teacher, "built", False)):
        return False  # Without variables yet.
    own = {id(variable) for variable in student.variables}
    theirs = {id(variable) for variable in teacher.variables}
    return bool(theirs) and own.issuperset(theirs)


def _check_classes(student, teacher, argument):
    """Raises unless both say something of as many classes, where that is known already."""
    known = [_classes(model) for model in (student, teacher)]
    if None not in known and known[0] != known[1]:
        raise ValueError(
            f"`{argument}` has {known[1]} logits, `student` has {known[0]}. Both must tell the "
            "same classes apart, in the same order."
        )


def _classes(model) -> int | None:
    try:
        return model.output_shape[-1]
    except (AttributeError, RuntimeError, TypeError, KeyError):  # Subclassed, or any callable.
        return None
