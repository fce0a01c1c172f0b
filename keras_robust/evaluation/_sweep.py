"""Accuracy against eps."""

from keras_robust.evaluation._columns import make_columns
from keras_robust.evaluation._inputs import rescaled
from keras_robust.evaluation._run import run_column


def swept_attack(attacks: dict) -> str | None:
    """The attack of the curves: the last with a radius, one that is no suite if there is one.

    A suite at seven radii takes long, and a curve needs no certainty for each point.
    """
    balls = [name for name, attack in attacks.items() if attack.eps is not None]
    single = [name for name in balls if not hasattr(attacks[name], "stages")]
    return (single or balls or [None])[-1]


def accuracy_curves(trial, runs, name, radii, images, clean) -> dict[str, dict[str, float]]:
    """eps -> artifact -> accuracy on the first `images`, the worst of all sources.

    Args:
        trial: all images.
        runs: what the attacks did at their own radius, which is not run again.
        name: of the attack.
        radii: ascending; none gives no curve.
        images: how many.
        clean: artifact -> labels predicted without attack.
    """
    if not radii:
        return {}
    part = trial.first(images)
    count = len(part.y)
    column, known = next((c, o) for c, o in runs if c.name == name)
    standing = {artifact: labels[:count] == part.y for artifact, labels in clean.items()}
    curves = {}
    for eps in radii:
        if eps == 0:
            good = standing
        elif eps == column.eps:
            good = {artifact: robust[:count] for artifact, robust in known.robust.items()}
        else:
            title = f"eps {eps:.4g}"
            (scaled,) = make_columns({title: rescaled(column.attack, eps)}, trial.classes)
            good = run_column(part, scaled, standing, f"sweep {count} {eps!r}").robust
        curves[f"{eps:.6g}"] = {artifact: float(values.mean()) for artifact, values in good.items()}
    return curves
