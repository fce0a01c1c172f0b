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
