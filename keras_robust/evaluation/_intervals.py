"""How sure an accuracy over a finite number of images is."""

import math

# The 97.5% point of the normal distribution, for two-sided 95% intervals.
_Z95 = 1.959963984540054


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The Wilson score interval at 95% of a share, Wilson 1927, doi:10.1080/01621459.1927.10502953.

    Unlike the textbook "plus or minus", it stays inside [0, 1] and is right near 0% and 100%,
    where robust accuracies of natural models lie.

    Args:
        successes: images counted, in `[0, trials]`.
        trials: images in all, >= 1.

    Returns:
        Lower and upper end, in [0, 1].

    >>> [round(end, 4) for end in wilson(0, 10)]
    [0.0, 0.2775]
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            f"`successes` must be in [0, trials] and trials >= 1, got {successes} of {trials}."
        )
    share, spread = successes / trials, _Z95**2 / trials
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    # The ends at 0% and 100% are exact, in spite of rounding.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return low, high
