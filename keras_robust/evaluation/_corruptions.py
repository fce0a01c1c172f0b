"""Errors of every artifact under common corruptions, which no attack is behind."""

import collections.abc

import numpy as np

from keras_robust.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from keras_robust.evaluation._run import batches, predicted


def corruption_errors(
    artifacts,
    x: np.ndarray,
    y: np.ndarray,
    names,
    seed: int,
    batch_size: int,
    say,
    *,
    bounds=(0.0, 1.0),
    baseline: str | None = None,
) -> dict[str, dict]:
    """Errors under each corruption at severities 1 to 5; an image is corrupted once for all.

    Args:
        artifacts: name -> `Artifact`.
        x: `(n, h, w, 1 or 3)`, floating point, in `bounds`.
        y: `(n,)` int labels.
        names: corruptions, of `kr.data.CORRUPTIONS`; None for all 15.
        seed: of the corruptions; the batch size does not alter them.
        batch_size: images corrupted and classified at a time.
        say: `Progress`; gets a line for each corruption.
        bounds: range of valid inputs.
        baseline: name of the artifact that errors are set in relation to.

    Returns:
        artifact -> `{"errors": {corruption: [share at severity 1, .., 5]}, "mean_error": share}`,
        the mean over all corruptions and severities; with a baseline also "relative_to", its
        name, and "relative_error", see `mean_corruption_error`.

    Raises:
        TypeError, ValueError: as `check_corruptions`; an unknown baseline.
    """
    names = check_corruptions(x, names, bounds)
    if baseline is not None and baseline not in artifacts:
        raise ValueError(
            f"`baseline` must be one of the artifacts ({', '.join(artifacts)}), got {baseline!r}."
        )
    wrong = {name: {} for name in artifacts}
    for corruption in names:
        found = [
            _errors(artifacts, x, y, corruption, severity, seed, batch_size, say, bounds)
            for severity in SEVERITIES
        ]
        for name in artifacts:
            wrong[name][corruption] = [errors[name] for errors in found]
        means = {name: np.mean(errors[corruption]) for name, errors in wrong.items()}
        say(f"{corruption}: mean error of the severities: {_percents(means)}")
    results = {
        name: {"errors": errors, "mean_error": float(np.mean(list(errors.values())))}
        for name, errors in wrong.items()
    }
    if baseline is not None:
        for result in results.values():
            result["relative_to"] = baseline
            result["relative_error"] = mean_corruption_error(result["errors"], wrong[baseline])
    return results


def check_corruptions(x, names=None, bounds=(0.0, 1.0)) -> list[str]:
    """The names to run, after a look at whether `x` can be corrupted at all; to be called early.

    Raises:
        TypeError, ValueError: `names` is no list of known names, each once, or `x` no images
            in `bounds`.
    """
    wanted = CORRUPTIONS if names is None else names
    if isinstance(wanted, str) or not isinstance(wanted, collections.abc.Iterable):
        raise TypeError(
            f"`corruptions` must be True or a list of names such as ['fog', 'snow'], got {names!r}."
        )
    wanted = list(wanted)
    unknown = [name for name in wanted if name not in CORRUPTIONS]
    if unknown or not wanted or len(set(wanted)) < len(wanted):
        wrong = f"{unknown[0]!r}, which is none" if unknown else f"{wanted!r}"
        raise ValueError(
            f"`corruptions` must hold names of kr.data.CORRUPTIONS ({', '.join(CORRUPTIONS)}), "
            f"each once, got {wrong}."
        )
    # Their shape and range; the corruption that costs least.
    corrupt(x[:1], "contrast", bounds=bounds)
    if not (np.min(x) >= bounds[0] - 1e-6 and np.max(x) <= bounds[1] + 1e-6):
        raise ValueError(
            f"`x` has values in [{np.min(x):g}, {np.max(x):g}], outside bounds={tuple(bounds)}. "
            "Corruptions need to know black and white: scale the images, or leave them out with "
            "corruptions=None."
        )
    return wanted


def mean_corruption_error(errors: dict, baseline: dict) -> float | None:
    """The paper's mCE: the mean over corruptions of summed errors over the baseline's.

    Args:
        errors, baseline: corruption -> errors at the severities.

    Returns:
        1 for the baseline itself, 0.5 for half its errors; None when the baseline makes no
        error at all under a corruption.

    >>> baseline = {"fog": [0.2, 0.4], "snow": [0.3, 0.3]}
    >>> mean_corruption_error({"fog": [0.1, 0.2], "snow": [0.3, 0.3]}, baseline)
    0.75
    """
    sums = {name: sum(values) for name, values in baseline.items()}
    if any(not sums[name] for name in errors):
        return None
    return float(np.mean([sum(values) / sums[name] for name, values in errors.items()]))


def _errors(artifacts, x, y, corruption, severity, seed, batch_size, say, bounds):
    """Artifact -> share of wrong answers at one severity."""
    wrong = dict.fromkeys(artifacts, 0)
    for rows, count in batches(len(x), batch_size):
        new = rows[:count]
        part = corrupt(x[new], corruption, severity, seed, bounds=bounds, first=int(new[0]))
        # Filled up to a size that models are traced for already.
        part = part[np.arange(len(rows)) % count]
        for name, artifact in artifacts.items():
            labels = predicted(artifact.predict(part)[:count])
            wrong[name] += int((labels != y[new]).sum())
        say.update(f"{corruption} at severity {severity}: {new[-1] + 1}/{len(x)} images")
    return {name: count / len(x) for name, count in wrong.items()}


def _percents(shares) -> str:
    return ", ".join(f"{name} {100 * share:.1f}%" for name, share in shares.items())
