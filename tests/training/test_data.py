"""What is said of training data before training starts."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.training._data import check_data, split_labels


def flat(x):
    return tf.reshape(x, [len(x), -1])[:, :3]


def test_single_examples_with_one_hot_labels_are_to_be_batched():
    x, y = np.zeros((4, 6, 6, 1), "float32"), np.eye(3, dtype="float32")[[0, 1, 2, 0]]
    single = tf.data.Dataset.from_tensor_slices((x, y))
    with pytest.raises(ValueError, match=r"\(6, 6, 1\) and \(3,\). Batch it: dataset.batch"):
        check_data(flat, (0.0, 1.0), single, None)
    assert check_data(flat, (0.0, 1.0), single.batch(2), None)[0].shape == (2, 6, 6, 1)


def test_labels_in_a_dict_are_named():
    x, y = np.zeros((4, 6, 6, 1), "float32"), {"a": np.arange(4) % 3}
    with pytest.raises(TypeError, match="`y` must be labels in one array, got a dict of 'a'"):
        check_data(flat, (0.0, 1.0), x, y)
    with pytest.raises(TypeError, match="`y` must be labels in one array, got a dict of 'a'"):
        check_data(flat, (0.0, 1.0), tf.data.Dataset.from_tensors((x, y)), None)
    with pytest.raises(TypeError, match="`y` must be labels in one tensor"):
        check_data(flat, (0.0, 1.0), tf.data.Dataset.from_tensors((x, (y["a"], y["a"]))), None)
    assert split_labels({"labels": 1, "logits": 2}) == (1, 2) and split_labels(1) == (1, None)
