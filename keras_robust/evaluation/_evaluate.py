"""A suite of attacks on a set of artifacts, on the same images, in one report."""

import numpy as np

from keras_robust._checks import check_labels
from keras_robust.evaluation import _inputs
from keras_robust.evaluation._examples import collect_examples
from keras_robust.evaluation._intervals import wilson
from keras_robust.evaluation._measure import environment, sizes_and_latency
from keras_robust.evaluation._progress import Progress
from keras_robust.evaluation._report import Report
from keras_robust.evaluation._run import Trial, predictions, run_attack
from keras_robust.evaluation._sources import plan_sources


def evaluate(
    artifacts,
    x,
    y,
    attacks=None,
    *,
    batch_size: int = 250,
    seed: int = 0,
    twins=None,
    eps_sweep=None,
    sweep_images: int = 500,
    class_names=None,
    histories=None,
    latency_runs: int = 50,
    progress=True,
    title: str | None = None,
) -> Report:
    """Clean and robust accuracy, size and latency of every artifact, on the same images.

    Attacks are white-box on whatever has gradients: models, callables and SavedModels. A
    `.tflite` file has none; it is tried on the examples made for each of its twins, and an
    image counts as robust only when the file classifies it and every one of its adversarial
    examples correctly. For every artifact an image that is misclassified when clean is not
    robust either.

    Args:
        artifacts: dict name -> Keras model, TensorFlow callable `(batch, ...) -> (batch,
            classes)`, SavedModel folder (or its parent with numbered versions: the newest
            counts), or path of a `.tflite` file. All return logits.
        x: `(n, ...)` floating point, inside the attacks' bounds.
        y: `(n,)` int labels, or `(n, classes)` one-hot.
        attacks: list of attacks, or dict name -> attack. None: FGSM and PGD-20 with linf
            eps 8/255, the usual radius for colour photographs; choose your own for other data.
        batch_size: images attacked at a time. Random starts depend on it.
        seed: of the attacks; batch `i` is attacked with `seed + i`.
        twins: dict name -> model, artifact name, or list or dict of these, that examples for
            that artifact are made on. A `.tflite` file without twins is tried on the examples
            of every artifact with gradients.
        eps_sweep: radii of the accuracy-eps curves, for the last attack. None: 0, .25, .5, 1,
            1.5, 2 and 3 times its eps. `()`: no curves.
        sweep_images: the curves use the first so many images.
        class_names: one string a class.
        histories: dict name -> what `fit` returned, for the training curves of the report.
        latency_runs: calls with one image each, whose median is the latency.
        progress: True writes a line for each step to stderr; a callable gets these lines.
        title: of the report.

    Returns:
        `Report`: `.to_dict()`, `.table()`, `.save(folder)`.

    Raises:
        TypeError, ValueError: wrong inputs, before any attack runs; the message names the
            argument, the value and the fix.

    >>> import tensorflow as tf
    >>> from keras_robust.attacks import FGSM
    >>> x, y = tf.constant([[0.9, 0.1], [0.45, 0.55]]), [0, 1]
    >>> report = evaluate({"identity": lambda x: 5 * x}, x, y, [FGSM(0.1)], progress=False)
    >>> report.to_dict()["artifacts"]["identity"]["robust_accuracy"]
    {'FGSM': 0.5}
    """
    say = Progress(progress)
    batch_size = _inputs.check_count("batch_size", batch_size, 1)
    sweep_images = _inputs.check_count("sweep_images", sweep_images, 1)
    latency_runs = _inputs.check_count("latency_runs", latency_runs, 1)
    seed = _inputs.check_count("seed", seed, 0)
    attacks = _inputs.check_attacks(attacks)
    x, y = _inputs.check_data(x, y, attacks)
    strongest = list(attacks.values())[-1]
    radii = _inputs.check_eps_sweep(eps_sweep, strongest)
    histories = _inputs.check_histories(histories)
    batch_size = min(batch_size, len(x))
    opened, classes, probe = _open(artifacts, x[:batch_size])
    check_labels(y, classes)
    class_names = _inputs.check_class_names(class_names, classes)
    sources = plan_sources(opened, twins, probe)

    measured = {
        name: sizes_and_latency(artifact, x[:1], latency_runs, say)
        for name, artifact in opened.items()
    }
    trial = Trial(opened, sources, x, y, batch_size, seed, say)
    clean = {name: predictions(artifact, x, batch_size) for name, artifact in opened.items()}
    outcomes = {name: run_attack(trial, name, attack, clean) for name, attack in attacks.items()}
    sweep = _sweep(trial, strongest, radii, sweep_images, clean, outcomes)
    last = list(attacks)[-1]
    data = {
        "schema": 1,
        "title": str(title or "Robustness report"),
        "data": {
            "images": len(x),
            "shape": list(x.shape[1:]),
            "classes": classes,
            "class_names": class_names,
        },
        "attacks": [
            {"name": name, "config": repr(a), "eps": float(a.eps), "norm": str(a.norm)}
            for name, a in attacks.items()
        ],
        "artifacts": {
            name: {
                "kind": artifact.kind,
                **_accuracies(name, clean, outcomes, y),
                **measured[name],
                "sweep": {eps: curve[name] for eps, curve in sweep.items()},
            }
            for name, artifact in opened.items()
        },
        "sweep": {"attack": last, "images": min(sweep_images, len(x))} if radii else None,
        "notes": _notes(opened, sources),
        "environment": environment(),
        "seed": seed,
        "batch_size": batch_size,
        "latency_runs": latency_runs,
        "histories": histories,
        "examples": collect_examples(last, strongest, opened, x, y, clean, outcomes[last]),
    }
    return Report(data)


def _open(artifacts, batch):
    """The opened artifacts, their number of classes, and how to check one more."""
    agreed = {}

    def probe(artifact, argument):
        artifact, classes = _inputs.probe(artifact, batch, argument)
        first, expected = next(iter(agreed.items()), (argument, classes))
        if classes != expected:
            raise ValueError(
                f"`{argument}` gives {classes} classes, but `{first}` gives {expected}. All must "
                "be classifiers of the same classes."
            )
        agreed[argument] = classes
        return artifact

    opened = {
        name: probe(artifact, f"artifacts[{name!r}]")
        for name, artifact in _inputs.check_artifacts(artifacts).items()
    }
    return opened, next(iter(agreed.values())), probe


def _accuracies(name, clean, outcomes, y) -> dict:
    count = len(y)

    def interval(good):
        return list(wilson(int(good.sum()), count))

    correct = clean[name] == y
    robust = {attack: outcome.robust[name] for attack, outcome in outcomes.items()}
    worst = np.logical_and.reduce(list(robust.values()))
    return {
        "clean_accuracy": float(correct.mean()),
        "clean_interval": interval(correct),
        "robust_accuracy": {attack: float(good.mean()) for attack, good in robust.items()},
        "robust_interval": {attack: interval(good) for attack, good in robust.items()},
        "worst_case": float(worst.mean()),
        "worst_case_interval": interval(worst),
        "sources": {attack: dict(out.broken[name]) for attack, out in outcomes.items()},
    }


def _sweep(trial, attack, radii, images, clean, outcomes) -> dict[str, dict[str, float]]:
    """eps -> artifact -> accuracy on the first `images`, the worst of all sources."""
    part = trial.first(images)
    known = {name: good[: len(part.y)] for name, good in list(outcomes.values())[-1].robust.items()}
    first = {name: labels[: len(part.y)] for name, labels in clean.items()}
    curves = {}
    for eps in radii:
        if eps == 0:
            good = {name: labels == part.y for name, labels in first.items()}
        elif eps == attack.eps:
            good = known
        else:
            scaled = _inputs.rescaled(attack, eps)
            good = run_attack(part, f"eps {eps:.4g}", scaled, first).robust
        curves[f"{eps:.6g}"] = {name: float(values.mean()) for name, values in good.items()}
    return curves


def _notes(opened, sources) -> list[str]:
    notes = [
        "An image counts as robust only when it is classified correctly both clean and attacked."
    ]
    for name, artifact in opened.items():
        others = [f'"{s.name}"' for s in sources if name in s.targets and s.name != name]
        if artifact.gradient_model is None:
            notes.append(
                f'"{name}" has no gradients: its adversarial examples were made white-box on '
                f"{' and on '.join(others)}, and an image counts as robust only when it withstands "
                f"{'all of them' if len(others) > 1 else 'these'}. An attack on it directly could "
                "break more."
            )
        elif others:
            notes.append(
                f'"{name}" was attacked white-box and with the examples made on '
                f"{' and on '.join(others)}; the worst counts for each image."
            )
    return notes
