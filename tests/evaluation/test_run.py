import numpy as np
import pytest
import tensorflow as tf

from keras_robust.evaluation import evaluate
from keras_robust.evaluation._outcome import UNDEFINED
from keras_robust.evaluation._run import batches, predicted


class Bad:
    name, eps, norm = "bad", 0.1, "linf"

    def __init__(self, change, norm="linf"):
        self.change, self.norm = change, norm

    def __call__(self, model, x, y, seed=0):
        return self.change(x)


@pytest.mark.parametrize(
    "change, norm, message",
    [
        (lambda x: x + 0.2, "linf", "'bad' left its ball: a perturbation has linf norm 0.2"),
        (lambda x: x + 0.09, "l2", "left its ball: a perturbation has l2 norm 0.3117"),
        (lambda x: x + 0.09, "l1", "left its ball: a perturbation has l1 norm 1.08"),
        (lambda x: x * np.nan, "linf", "with 720 NaN or infinite values"),
        (lambda x: x[:-1], "linf", r"returned an array of shape \(59, 12\)"),
        (lambda x: np.where(x == x.min(), -0.01, x), "other", r"left the bounds \(0, 1\)"),
    ],
)
def test_attack_that_breaks_its_promise_is_an_error(inside, change, norm, message):
    model, x, y, _ = inside()
    with pytest.raises(ValueError, match=message):
        evaluate({"m": model}, x, y, [Bad(change, norm)], progress=False, latency_runs=1)


@pytest.mark.parametrize(
    "length, size, filled, widths",
    [
        (20, 8, True, [8, 8, 8]),
        (17, 8, True, [8, 8, 1]),  # less than a quarter is new: a power of two
        (45, 20, True, [20, 20, 20]),
        (43, 20, True, [20, 20, 4]),
        (43, 20, False, [20, 20, 3]),
        (0, 20, True, []),
    ],
)
def test_last_batch_is_full_or_small(length, size, filled, widths):
    assert [len(rows) for rows, _ in batches(length, size, filled)] == widths
    new = [rows[:count] for rows, count in batches(length, size, filled)]
    assert np.concatenate([[], *new]).tolist() == list(range(length))


@pytest.mark.parametrize("length, size", [(10, 4), (8, 4), (3, 3), (1, 1)])
def test_batches_are_full_and_cover_each_row_once(length, size):
    covered = []
    for rows, count in batches(length, size):
        assert len(rows) == size
        covered += rows[:count].tolist()
    assert covered == list(range(length))


def test_nan_is_the_largest_logit_of_no_class():
    logits = [[0.0, 1.0], [np.nan, 1.0], [2.0, np.nan], [np.inf, 0.0]]
    assert predicted(logits).tolist() == [1, UNDEFINED, UNDEFINED, 0]


def test_images_of_nan_logits_are_wrong_clean_and_attacked(shift):
    """NaN beyond 0.6 at the second input: after the first batch, which is looked at."""
    x = np.full((6, 2), 0.3, "float32")
    x[2:4, 1] = 0.55, 0.65
    logits = lambda x: tf.stack([x[:, 0], -x[:, 0]], 1)  # noqa: E731
    broken = lambda x: tf.where(x[:, 1:] > 0.6, np.nan, logits(x))  # noqa: E731
    message = '"m" gave NaN logits for 1 image without attack and 1 image under shift: these count'
    with pytest.warns(UserWarning, match=message):
        report = evaluate(
            {"m": broken, "good": logits},
            x,
            np.zeros(6, int),
            [shift(0.1, direction=1.0)],
            batch_size=2,
            black_box=False,
            eps_sweep=(),
            progress=False,
            latency_runs=1,
        )
    found = report.to_dict()["artifacts"]["m"]
    assert found["clean_accuracy"] == 5 / 6 and found["robust_accuracy"] == {"shift": 4 / 6}
    assert found["worst_case"] == 4 / 6
    assert report.to_dict()["artifacts"]["good"]["worst_case"] == 1
    assert [note for note in report.to_dict()["notes"] if "NaN" in note] == [message + " as wrong."]
