import numpy as np
import pytest
import tensorflow as tf

from keras_robust.data import CORRUPTIONS, corrupt
from keras_robust.evaluation._artifacts import open_artifact
from keras_robust.evaluation._corruptions import (
    check_corruptions,
    corruption_errors,
    mean_corruption_error,
)
from keras_robust.evaluation._progress import Progress

pytestmark = pytest.mark.once


def bright(x):
    """Says 1 for images whose mean is above one half."""
    mean = tf.reduce_mean(tf.reshape(x, [tf.shape(x)[0], -1]), axis=1)
    return tf.stack([0.5 - mean, mean - 0.5], axis=1) * 10


def always_one(x):
    return tf.one_hot(tf.ones(tf.shape(x)[0], tf.int32), 2) * 5


@pytest.fixture
def opened():
    models = {"bright": bright, "one": always_one}
    return {name: open_artifact(name, model, name) for name, model in models.items()}


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 1, (23, 12, 12, 1)).astype("float32")
    x = 0.5 * x + np.linspace(0.1, 0.4, 23, dtype="float32")[:, None, None, None]
    return x, (x.mean(axis=(1, 2, 3)) > 0.5).astype("int64")


def run(opened, images, names=None, batch_size=8, **settings):
    return corruption_errors(opened, *images, names, 3, batch_size, Progress(False), **settings)


def test_errors_are_those_of_the_corrupted_images(opened, images):
    x, y = images
    found = run(opened, images, ["brightness", "fog"])
    assert list(found) == ["bright", "one"]
    for name in ("brightness", "fog"):
        expected = []
        for severity in range(1, 6):
            says = corrupt(x, name, severity, seed=3).mean(axis=(1, 2, 3)) > 0.5
            expected.append(np.mean(says != y))
        assert found["bright"]["errors"][name] == pytest.approx(expected)
        assert found["one"]["errors"][name] == pytest.approx([np.mean(y != 1)] * 5)
    # More light makes more images bright.
    assert np.all(np.diff(found["bright"]["errors"]["brightness"]) >= 0)
    assert found["bright"]["errors"]["brightness"][4] > 0.2
    values = np.ravel(list(found["bright"]["errors"].values()))
    assert found["bright"]["mean_error"] == pytest.approx(values.mean())
    assert set(found["one"]) == {"errors", "mean_error"}


@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_the_batch_size_alters_nothing(opened, images, batch_size):
    names = ["glass_blur", "snow"]
    assert run(opened, images, names, batch_size) == run(opened, images, names)


def test_all_fifteen_by_default_and_ready_for_json(opened, images):
    x, y = images
    found = run(opened, (x[:4], y[:4]))
    assert tuple(found["bright"]["errors"]) == CORRUPTIONS
    assert all(type(e) is float for values in found["one"]["errors"].values() for e in values)


def test_relative_to_a_baseline(opened, images):
    x, y = images
    some = y == 0  # "one" is always wrong here
    found = run(opened, (x[some], y[some]), ["brightness", "fog"], baseline="one")
    assert found["one"]["relative_error"] == 1 and found["bright"]["relative_to"] == "one"
    errors = found["bright"]["errors"]
    expected = np.mean([np.mean(errors["brightness"]), np.mean(errors["fog"])])
    assert found["bright"]["relative_error"] == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"`baseline` must be one of .*bright, one.*got 'three'"):
        run(opened, images, ["fog"], baseline="three")


def test_relative_error_weighs_corruptions_alike():
    baseline = {"fog": [0.1] * 5, "snow": [0.5] * 5}
    assert mean_corruption_error({"fog": [0.2] * 5, "snow": [0.5] * 5}, baseline) == pytest.approx(
        1.5
    )
    assert mean_corruption_error({"fog": [0.1] * 5}, {"fog": [0.0] * 5}) is None


def test_progress_has_a_line_for_each_corruption(opened, images):
    lines = []
    corruption_errors(opened, *images, ["fog", "snow"], 0, 8, Progress(lines.append))
    assert [line.split(":")[0] for line in lines] == ["fog", "snow"]
    assert "bright" in lines[0] and "%" in lines[0]


def test_other_bounds(opened, images):
    x, y = images
    names = ["contrast"]
    doubled = {"bright": open_artifact("bright", lambda x: bright(x / 2), "bright")}
    found = run(doubled, (2 * x, y), names, bounds=(0, 2))
    assert found["bright"] == run(opened, images, names)["bright"]


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["rain"], ValueError, "names of kr.data.CORRUPTIONS .*got 'rain', which is none"),
        ([], ValueError, r"each once, got \[\]"),
        (["fog", "fog"], ValueError, r"each once, got \['fog', 'fog'\]"),
        ("fog", TypeError, r"a list of names such as .*got 'fog'"),
        (7, TypeError, "got 7"),
    ],
)
def test_wrong_names_say_what_to_do(names, error, message):
    with pytest.raises(error, match=message):
        check_corruptions(np.ones((1, 8, 8, 1), "float32"), names)


def test_inputs_that_are_no_images_are_refused():
    with pytest.raises(ValueError, match="must be images"):
        check_corruptions(np.ones((5, 12), "float32"))
    x = np.ones((2, 8, 8, 1), "float32")
    x[1] = 2
    with pytest.raises(ValueError, match="outside bounds.*leave them out with corruptions=None"):
        check_corruptions(x)
    assert check_corruptions(x, ["fog"], bounds=(0, 2)) == ["fog"]


def test_nan_logits_are_errors():
    broken = open_artifact("m", lambda x: np.nan * bright(x), "m")
    x = np.full((3, 8, 8, 1), 0.5, "float32")
    found = run({"m": broken}, (x, np.zeros(3, int)), ["contrast"])
    assert found["m"]["mean_error"] == 1
