"""A suite of attacks on a set of artifacts, on the same images, in one report."""

import warnings

from keras_robust._checks import check_labels
from keras_robust.evaluation import _inputs
from keras_robust.evaluation._columns import BALL, check_attacks, check_black_box, make_columns
from keras_robust.evaluation._examples import collect_examples
from keras_robust.evaluation._extras import check_extras, corruptions_of, diagnosis_of
from keras_robust.evaluation._fingerprint import data_hash, fingerprint
from keras_robust.evaluation._journal import Journal
from keras_robust.evaluation._leaderboard import leaderboard
from keras_robust.evaluation._measure import environment, sizes_and_latency
from keras_robust.evaluation._progress import Progress
from keras_robust.evaluation._report import SCHEMA, Report
from keras_robust.evaluation._results import (
    artifact_results,
    make_notes,
    undefined_notes,
    worst_case,
)
from keras_robust.evaluation._run import Trial, predictions, run_column
from keras_robust.evaluation._sources import plan_sources
from keras_robust.evaluation._sweep import accuracy_curves, swept_attack


def evaluate(
    artifacts,
    x,
    y,
    attacks=None,
    *,
    batch_size: int = 250,
    seed: int = 0,
    twins=None,
    black_box=True,
    diagnose: bool = False,
    corruptions=None,
    journal=None,
    eps_sweep=None,
    sweep_images: int = 500,
    class_names=None,
    histories=None,
    latency_runs: int = 50,
    progress=True,
    title: str | None = None,
) -> Report:
    """Clean and robust accuracy, size and latency of every artifact, on the same images.

    Attacks are white-box on whatever has gradients: models, callables and SavedModels; models
    that round also with a gradient that passes straight through. A `.tflite` file and a served
    endpoint have none; they are tried on the examples made for each of their twins, and asked
    directly by attacks without gradients. An image counts as robust only when the artifact
    classifies it and every one of its adversarial examples correctly. An image for which logits
    are NaN is wrong, clean or attacked; a warning and the notes say how many there are.

    `worst_case` is over all attacks with a radius (`eps`), image by image. Attacks without one
    stand beside it: noise and spatial attacks with an accuracy of their own, searches for the
    smallest perturbation with its size.

    Args:
        artifacts: dict name -> Keras model, TensorFlow callable `(batch, ...) -> (batch,
            classes)`, SavedModel folder (or its parent with numbered versions: the newest
            counts), path of a `.tflite` file, path of a `.krz` file of `kr.compress.pack`, or
            address of a model behind TensorFlow Serving, "http://host:port/v1/models/NAME". All
            return logits.
        x: `(n, ...)` floating point, inside the attacks' bounds.
        y: `(n,)` int labels, or `(n, classes)` one-hot.
        attacks: list of attacks, or dict name -> attack. None: PGD-20 and AutoAttack with linf
            eps 8/255, the usual radius for colour photographs; choose your own for other data.
        batch_size: images attacked at a time, and kept in memory. Random starts depend on it.
        seed: of the attacks; batch `i` is attacked with `seed + i`.
        twins: dict name -> model, artifact name, or list or dict of these, that examples for
            that artifact are made on. A `.tflite` file without twins is tried on the examples
            of every artifact with gradients.
        black_box: attacks that are added where gradients are missing or often zero, on the
            images that withstood all others. True: Square and HopSkipJump with 1,000 queries an
            image in the ball of the last attack; or a list of attacks; or False.
        diagnose: also run the honesty checks: is the robust accuracy real?
        corruptions: True for the error under 15 common corruptions at 5 severities, or a list of
            their names.
        journal: folder or file that every finished batch is written to. Called again with the
            same arguments, `evaluate` goes on from there, to the same report.
        eps_sweep: radii of the accuracy-eps curves, for the last attack with a radius that is no
            suite, else for the suite. None: 0, .25, .5, 1, 1.5, 2 and 3 times its eps, and
            nothing when there are only suites. `()`: no curves.
        sweep_images: the curves use the first so many images.
        class_names: one string a class.
        histories: dict name -> what `fit` returned, for the training curves of the report.
        latency_runs: calls with one image each, whose median is the latency.
        progress: True writes a line for each step to stderr; a callable gets these lines.
        title: of the report.

    Returns:
        `Report`: `.to_dict()`, `.table()`, `.save(folder)`.

    Raises:
        TypeError, ValueError: wrong inputs, or NaN logits in the first batch, before any attack
            runs; the message names the argument, the value and the fix.

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
    attacks = check_attacks(attacks)
    extra = check_black_box(black_box, attacks)
    given = y
    x, y = _inputs.check_data(x, y, {**attacks, **extra})
    swept = swept_attack(attacks)
    radii = _inputs.check_eps_sweep(eps_sweep, attacks.get(swept))
    histories = _inputs.check_histories(histories)
    corruptions = check_extras(diagnose, corruptions, attacks.get(swept), x)
    batch_size = min(batch_size, len(x))
    opened, classes, probe = _open(artifacts, x[:batch_size])
    check_labels(given, classes)
    class_names = _inputs.check_class_names(class_names, classes)
    columns = make_columns(attacks, classes)
    sources = plan_sources(opened, twins, probe, columns, classes)
    added = make_columns(extra, classes, added=True) if sources.blind else []
    _inputs.check_layout(x, columns + added)

    every = {**sources.twins, **opened}
    labels = {name: predictions(artifact, x, batch_size) for name, artifact in every.items()}
    clean = {name: labels[name] for name in opened}
    pairs = {source.name: source.targets for source in sources.gradient}
    settings = {"seed": seed, "batch_size": batch_size, "twins": pairs}
    book = Journal(journal, fingerprint(x, y, columns + added, every, labels, settings), say)
    try:
        measured = {
            name: _measure(artifact, x[:1], latency_runs, book, say)
            for name, artifact in opened.items()
        }
        trial = Trial(opened, sources, x, y, classes, batch_size, seed, say, book)
        runs = _attack(trial, columns, added, clean)
        curves = accuracy_curves(trial, runs, swept, radii, sweep_images, clean)
        beyond = corruptions_of(trial, corruptions, attacks.get(swept))
        if diagnose:
            for name in opened:
                checks = diagnosis_of(trial, name, attacks[swept])
                beyond[name] = {**beyond.get(name, {}), **checks}
    finally:
        book.close()
    results = {
        name: {
            "kind": artifact.kind,
            **artifact_results(name, runs, clean[name], y, classes),
            **measured[name],
            "sweep": {eps: curve[name] for eps, curve in curves.items()},
            **beyond.get(name, {}),
        }
        for name, artifact in opened.items()
    }
    undefined = undefined_notes(clean, runs)
    for note in undefined:
        warnings.warn(note, stacklevel=2)
    described = [column.facts() for column in columns + added]
    last = next((run for run in reversed(runs) if run[1].pictured), None)
    data = {
        "schema": SCHEMA,
        "title": str(title or "Robustness report"),
        "data": {
            "images": len(x),
            "shape": list(x.shape[1:]),
            "classes": classes,
            "class_names": class_names,
            "fingerprint": data_hash(x, y),
        },
        "attacks": described,
        "artifacts": results,
        "leaderboard": leaderboard(results, described, len(x)),
        "sweep": {"attack": swept, "images": min(sweep_images, len(x))} if radii else None,
        "notes": make_notes(opened, sources, runs, added) + undefined,
        "environment": environment(),
        "seed": seed,
        "batch_size": batch_size,
        "latency_runs": latency_runs,
        "histories": histories,
        "examples": last and collect_examples(last[0], opened, x, y, clean, last[1]),
    }
    return Report(data)


def _attack(trial, columns, added, clean) -> list:
    """(column, outcome) of all attacks; those that are added see what the others left standing."""
    right = {name: labels == trial.y for name, labels in clean.items()}
    pictured = next((c for c in reversed(columns) if c.kind == BALL), None)
    runs = []
    for column in columns:
        runs.append((column, run_column(trial, column, right, pictures=column is pictured)))
    for column in added:
        left = {name: worst_case(name, runs) for name in trial.sources.blind}
        left = {name: right[name] if good is None else good for name, good in left.items()}
        runs.append((column, run_column(trial, column, left)))
    return runs


def _measure(artifact, image, runs, book, say) -> dict:
    return book.once(
        ("measure", artifact.name, runs), lambda: sizes_and_latency(artifact, image, runs, say)
    )


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
