"""What the checks let through, and in which form; what they refuse stands with their users."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust import _checks

pytestmark = pytest.mark.once


def test_images_become_float32():
    for dtype in ("float16", "float32", "float64"):
        x = _checks.check_images(np.full((2, 3), 0.5, dtype))
        assert x.dtype == tf.float32 and x.shape == (2, 3)


def test_rounding_at_the_bounds_is_forgiven_and_more_is_not():
    _checks.check_images(np.full((1, 2), 1 + 5e-7), (0.0, 1.0))
    with pytest.raises(ValueError, match="outside bounds"):
        _checks.check_images(np.full((1, 2), 1.01), (0.0, 1.0))


def test_one_hot_labels_become_numbers_and_soft_ones_stay():
    np.testing.assert_array_equal(_checks.check_labels(np.eye(3)[[2, 0]]), [2, 0])
    soft = _checks.check_labels(np.array([[0.5, 0.5], [0.0, 1.0]]))
    assert soft.dtype == tf.float32 and soft.shape == (2, 2)


def test_labels_in_a_graph_are_converted_without_a_look():
    @tf.function
    def convert(y):
        return _checks.check_labels(y, classes=3)

    np.testing.assert_array_equal(convert(tf.constant([[1], [2]])), [1, 2])
    assert convert(tf.constant([[0.0, 1.0, 0.0]])).shape == (1, 3)


def test_bounds_are_asserted_while_a_graph_runs():
    check = tf.function(lambda x: _checks.assert_in_bounds(x, (0.0, 1.0)))
    check(tf.constant([[0.0, 1.0]]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="outside bounds"):
        check(tf.constant([[0.0, 1.5]]))


def test_logits_are_counted():
    assert _checks.check_logits(tf.constant([[1.0, -2.0, 0.5]])) == 3
    with pytest.raises(ValueError, match="returned NaN or infinite logits"):
        _checks.check_logits(tf.constant([[1.0, np.nan]]))


@pytest.mark.parametrize(
    "row", [[0.5, np.nan], [1.5, -0.5], [0.0, 0.0], [0.5, 0.6], [1.0, 1.0], [np.inf, 0.0]]
)
def test_label_vectors_are_distributions(row):
    vectors = np.array([[0.25, 0.75], row], "float32")
    with pytest.raises(ValueError, match=r"`labels` must hold label vectors .* in row 1\."):
        _checks.check_labels(vectors, argument="labels")
    # A graph has no values to look at.
    assert tf.function(_checks.check_labels)(tf.constant(vectors)).shape == (2, 2)


def test_rounding_of_label_vectors_is_forgiven():
    vectors = np.full((2, 1000), 1e-3, "float16")
    assert vectors.astype("float64").sum(-1)[0] != 1
    assert _checks.check_labels(vectors).shape == (2, 1000)


def endless():
    yield np.zeros((1, 2))


@pytest.mark.parametrize("check", [_checks.check_images, _checks.check_labels])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"got None\."),
        (tf.data.Dataset.range(3), "got a tf.data.Dataset. Put its batches together: x, y = "),
        (endless, "got a function. Put what it gives together"),
        (endless(), "got a generator. Put what it gives together"),
        ("images.npy", "got 'images.npy'. Load what it names first"),
        ([[1.0], [1.0, 2.0]], "got list. It cannot become one: "),
        ({"x": 1.0}, "got dict. It cannot become one: "),
    ],
)
def test_what_is_no_array_is_named(check, value, message):
    with pytest.raises(TypeError, match=r"`data` must be an array \(batch.* " + message):
        check(value, argument="data")


def test_bytes_may_be_scaled_by_the_model():
    with pytest.raises(TypeError, match=r"/ 255 where it takes \[0, 1\].*Rescaling"):
        _checks.check_images(np.zeros((1, 2), "uint8"))


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 3, 160, 224), (2, 1, 28, 28)])
def test_channels_first_are_refused(shape):
    message = r"has shape \(.*\), which looks channels first. Move .*numpy.moveaxis\(x, 1, -1\)"
    with pytest.raises(ValueError, match=message):
        _checks.check_channels_last(tf.zeros(shape))


@pytest.mark.parametrize(
    "shape", [(2, 3, 32, 3), (2, 1, 5, 1), (2, 1, 100, 8), (2, 8, 8, 64), (2, 3, 4), (2, 3, 3, 64)]
)
def test_what_may_have_channels_last_passes(shape):
    _checks.check_channels_last(tf.zeros(shape))


def test_probabilities_are_asserted_while_a_graph_runs():
    check = tf.function(lambda z: _checks.assert_logits(z, "teacher"))
    sure = [[0.25, 0.75]] * 7
    check(tf.constant([*sure, [0.5, 0.6]]))
    check(tf.constant([*sure, [-0.5, 1.5]]))
    check(tf.constant([*sure, [np.nan, 0.75]]))
    check(tf.constant(sure))  # Too few to tell.
    check(tf.zeros((0, 2)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="`teacher` returned probabilities"):
        check(tf.constant([*sure, [0.5, 0.5]]))
