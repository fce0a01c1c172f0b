"""Szegedy's search with scipy's L-BFGS-B for one input, many of them at a time."""

import functools
import itertools

import numpy as np

from keras_robust.attacks._lockstep import Lockstep

# Factors of 10 that c is followed up or down from its first guess.
_DECADES = 8
# Relative gain at which a run ends. Smaller ones are near the rounding of a float32 model.
_PRECISION = 1e-6
# Halvings of the way back from an example to the boundary: to a thousandth of the distance.
_HALVINGS = 10
# Most inputs at work at a time, and most values in all of them: L-BFGS-B keeps 25 float64
# numbers for each, a gigabyte in all.
_LANES, _VALUES = 128, 5_000_000

# Searches under way, by number: a graph passes numbers on, not objects.
_searches = {}
_numbers = itertools.count()


def begin(attack, x) -> np.int64:
    """Starts a search around each row of `x` and returns the number of all together."""
    number = next(_numbers)
    jobs = [functools.partial(_nearest, attack, row) for row in x]
    lanes = max(1, min(_LANES, _VALUES // max(x[:1].size, 1)))
    _searches[number] = Lockstep(jobs, lanes)
    return np.int64(number)


def proceed(number, jobs, log_odds, gradient, success):
    """Answers the last questions and returns the next ones: jobs, `(n,)` int32, and points.

    Args:
        number: of `begin`.
        jobs: `(n,)`, rows that asked; empty at the start.
        log_odds, success: `(n,)`, and
        gradient: `(n, ...)`, of the log odds: the model at the points asked for.
    """
    search = _searches[int(number)]
    try:
        with _one_thread_each():
            search.answer(dict(zip(jobs.tolist(), zip(log_odds, gradient, success))))
            asked = search.questions()
    except Exception:
        del _searches[int(number)]
        raise
    points = np.stack(list(asked.values())) if asked else gradient[:0]
    return np.array(list(asked), np.int32), points


def finish(number, x):
    """Distances `(n,)` float64, infinite where nothing was found, and examples `(n, ...)`."""
    results = _searches.pop(int(number)).results
    examples = x.copy()
    for row, (_, example) in enumerate(results):
        if example is not None:
            examples[row] = example
    return np.array([distance for distance, _ in results], np.float64), examples


def _one_thread_each():
    """While it lasts BLAS stays in its thread: on vectors this small its threads only wait for
    each other, which made L-BFGS-B fifteen times slower."""
    return _blas().limit(limits=1, user_api="blas")


@functools.cache
def _blas():
    import scipy.linalg  # noqa: F401  loads the library to be limited
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


def _nearest(attack, x, ask):
    """Distance and example for one input and target; infinite and None without one."""
    low, high = (np.float32(bound) for bound in attack.bounds)
    look = _Look(ask, x, np.minimum(x, low), np.maximum(x, high))
    log_odds, gradient, *_ = look(x)
    steepest = gradient @ gradient
    if steepest == 0 or not np.isfinite(log_odds):
        return look.distance, look.example
    # On a linear model without bounds this is the largest c that succeeds.
    c = steepest / (4.0 * max(log_odds, 1e-6))
    works = fails = None
    for _ in range(_DECADES):
        works, fails = (c, fails) if _minimiser_succeeds(attack, look, c) else (works, c)
        if works and fails:
            break
        c = c / 10.0 if works is None else c * 10.0
    for _ in range(attack.search_steps if works and fails else 0):
        c = np.sqrt(works * fails)
        works, fails = (c, fails) if _minimiser_succeeds(attack, look, c) else (works, c)
    _return_to_boundary(look)
    return look.distance, look.example


class _Look:
    """What the model says of points in the bounds; the nearest success of all is kept."""

    def __init__(self, ask, x, low, high):
        self._ask, self.x, self.low, self.high = ask, x, low, high
        self.distance, self.example = np.inf, None

    def __call__(self, point):
        """Log odds, gradient and success at `point`, and the perturbation, in float64."""
        point = np.asarray(point, np.float32).reshape(self.x.shape)
        point = np.clip(point, self.low, self.high)
        log_odds, gradient, success = self._ask(point)
        delta = np.subtract(point, self.x, dtype=np.float64).ravel()
        distance = np.sqrt(delta @ delta)
        if success and distance < self.distance:
            self.distance, self.example = distance, point
        return float(log_odds), gradient.ravel().astype(np.float64), bool(success), delta


def _minimiser_succeeds(attack, look, c) -> bool:
    from scipy import optimize

    def objective(point):
        log_odds, gradient, _, delta = look(point)
        loss = np.logaddexp(0.0, log_odds)
        return c * (delta @ delta) + loss, 2.0 * c * delta + np.exp(log_odds - loss) * gradient

    result = optimize.minimize(
        objective,
        look.x.ravel().astype(np.float64),
        jac=True,
        method="L-BFGS-B",
        bounds=optimize.Bounds(look.low.ravel(), look.high.ravel()),
        options={"maxiter": attack.iterations, "ftol": _PRECISION, "gtol": 0.0},
    )
    return look(result.x)[2]


def _return_to_boundary(look) -> None:
    """From the nearest example straight back towards the input."""
    if look.example is None:
        return
    far, outside, inside = look.example, 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (outside + inside) / 2.0
        success = look(look.x + middle * (far - look.x))[2]
        outside, inside = (outside, middle) if success else (middle, inside)
