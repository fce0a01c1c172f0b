"""The honesty checks: is robust accuracy real, or does the attack fail for another reason?"""

import numpy as np

from keras_robust.attacks._threat import NORMS
from keras_robust.evaluation._run import predicted
from keras_robust.evaluation.diagnosis._budget import (
    check_restarts,
    check_single_step,
    check_steps,
)
from keras_robust.evaluation.diagnosis._finding import LeftOut, finding
from keras_robust.evaluation.diagnosis._gradients import check_differences, check_gradients
from keras_robust.evaluation.diagnosis._losses import check_losses
from keras_robust.evaluation.diagnosis._outside import check_black_box, check_random
from keras_robust.evaluation.diagnosis._radius import check_radius
from keras_robust.evaluation.diagnosis._randomness import check_randomness
from keras_robust.evaluation.diagnosis._render import format_diagnosis, render_diagnosis
from keras_robust.evaluation.diagnosis._straight import check_straight_through
from keras_robust.evaluation.diagnosis._subject import Subject

__all__ = ["check_threat_model", "diagnose", "format_diagnosis", "render_diagnosis"]

# Those that look at all gradient attacks together come after them.
CHECKS = {
    "randomness": check_randomness,
    "gradients": check_gradients,
    "finite differences": check_differences,
    "losses": check_losses,
    "single step": check_single_step,
    "steps": check_steps,
    "restarts": check_restarts,
    "accuracy against eps": check_radius,
    "random against gradient": check_random,
    "black box against white box": check_black_box,
    "straight through": check_straight_through,
}


def diagnose(
    artifact, x, y, attack, seed=0, say=None, images: int = 200, batch_size: int = 250
) -> list[dict]:
    """Whether the robust accuracy of one artifact can be believed.

    The checks of Athalye et al. 2018, https://arxiv.org/abs/1802.00420, and Carlini et al. 2019,
    https://arxiv.org/abs/1902.06705, in the threat model of `attack`; each function that makes
    one says what it counts and from where on it is too much.

    Args:
        artifact: an opened `Artifact`.
        x: `(n, ...)` float32 inside the attack's bounds.
        y: `(n,)` int labels.
        attack: one of the report's that has an eps; what varies is PGD with its
            eps, norm, bounds and loss.
        seed: int, of the attacks.
        say: takes a line of progress, or None.
        images: the first so many are looked at.
        batch_size: images at a time.

    Returns:
        One dict a check: "check", "verdict" ("ok", "warning" or "suspicious"), "numbers" and
        "meaning".

    Raises:
        ValueError: an attack without an eps above zero, or in another norm than a ball's.
    """
    check_threat_model(attack)
    say = say or (lambda line: None)
    x, y = np.asarray(x[:images], np.float32), np.asarray(y[:images])
    logits = [artifact.predict(x[i : i + batch_size]) for i in range(0, len(x), batch_size)]
    logits = np.concatenate(logits)
    right = predicted(logits) == y
    if not right.any():
        return [finding("clean accuracy", "warning", _NOTHING_RIGHT, {"accuracy": {"clean": 0.0}})]
    classes = logits.shape[-1]
    subject = Subject(artifact, x[right], y[right], len(x), classes, attack, seed, batch_size)
    found, left_out = [], {}
    for number, (name, check) in enumerate(CHECKS.items(), 1):
        try:
            found.append(check(subject))
            verdict = found[-1]["verdict"]
        except LeftOut as reason:
            left_out[name] = str(reason)
            verdict = "left out"
        say(f"honesty check {number}/{len(CHECKS)} of {artifact.name}: {name}: {verdict}")
    found = _in_context(found)
    return found + ([_not_checked(left_out)] if left_out else [])


def check_threat_model(attack) -> None:
    """Raises `ValueError` unless `attack` has a ball to examine a model in."""
    norm, eps = getattr(attack, "norm", None), getattr(attack, "eps", None)
    if norm not in NORMS or not eps:
        raise ValueError(
            "`diagnose` needs an attack with eps > 0 in the norm linf, l2 or l1, got "
            f"norm={norm!r} and eps={eps!r}. Give one, such as kr.attacks.PGD(eps=8 / 255)."
        )


def _in_context(found) -> list[dict]:
    """The findings with what one of them takes away from others."""
    by_check = {each["check"]: each for each in found}
    random = by_check["randomness"]["verdict"] != "ok"
    gradients = by_check.get("gradients", {"numbers": {}})["numbers"]
    blind = gradients.get("log_odds_without_gradient_share", 0) > _BLIND

    def noted(each):
        note = ""
        if random and each["verdict"] != "ok" and each["check"] != "randomness":
            note = " The model is random, which by itself can cause this."
        elif blind and each["verdict"] == "ok" and each["check"] in _FOLLOW_GRADIENTS:
            note = " But where there is no gradient to follow, this says nothing."
        return {**each, "meaning": each["meaning"] + note}

    return [noted(each) for each in found]


_BLIND = 0.05
_FOLLOW_GRADIENTS = {"losses", "single step", "steps", "restarts"}


def _not_checked(left_out) -> dict:
    reasons = {}
    for name, reason in left_out.items():
        reasons.setdefault(reason, []).append(name)
    text = " ".join(f"{reason}: {', '.join(names)}." for reason, names in reasons.items())
    return finding("left out", "warning", f"Not checked. {text}", {"checks": len(left_out)})


_NOTHING_RIGHT = (
    "None of these images is classified right when clean, so that there is nothing to attack. "
    "Check the labels and the scale of the inputs."
)
