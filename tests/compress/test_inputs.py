import numpy as np
import pytest
import tensorflow as tf

from keras_robust._keras import LEGACY, keras
from keras_robust.compress._inputs import check_dataset, check_epochs, loss_for

pytestmark = pytest.mark.skipif(not LEGACY, reason="compress needs tf_keras")


def dataset(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y))


def test_epochs_of_each_stage():
    assert check_epochs(2, 3) == [2, 2, 2]
    assert check_epochs((1, 2, 3), 3) == [1, 2, 3]


def test_steps_and_first_batch(tools):
    steps, (x, y) = check_dataset(tools.dataset(100, 32), tools.model(), "train_ds")
    assert steps == 4 and x.shape == (32, 8, 8, 1) and y.shape == (32,)
    counted = tools.dataset(100, 32).filter(lambda x, y: tf.shape(x)[0] == 32)
    assert check_dataset(counted, tools.model(), "train_ds")[0] == 3


def test_loss_follows_the_labels():
    sparse, dense = keras.losses.SparseCategoricalCrossentropy, keras.losses.CategoricalCrossentropy
    assert isinstance(loss_for(tf.zeros([4], tf.int32)), sparse)
    assert isinstance(loss_for(tf.zeros([4, 1], tf.int32)), sparse)
    assert isinstance(loss_for(tf.zeros([4, 3])), dense)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x, y: dataset(x, y), r"`train_ds` is not batched.*\(8, 8, 1\).*batch\(128\)"),
        (lambda x, y: dataset(x[:, :4], y).batch(8), r"shape \(None, 4, 8, 1\), but the model"),
        (lambda x, y: dataset(x, y).batch(8).take(0), "`train_ds` is empty"),
        (lambda x, y: dataset(x, y).batch(8).repeat(), r"never ends.*train_ds.take\(1000\)"),
        (lambda x, y: dataset(x, y + 1).batch(128), r"labels` must be in \[0, 4\)"),
        (lambda x, y: dataset(x * np.nan, y).batch(8), "NaN or infinite"),
        (lambda x, y: tf.data.Dataset.from_tensor_slices(x).batch(8), r"must give \(x, y\)"),
    ],
)
def test_data_that_does_not_fit(tools, change, match):
    with pytest.raises(ValueError, match=match):
        check_dataset(change(*tools.data()), tools.model(), "train_ds")


def test_models_that_return_probabilities_are_seen_by_their_values(tools):
    model = tools.model()
    inner = keras.Model(model.input, tf.nn.softmax(model.output))
    with pytest.raises(ValueError, match="returned probabilities"):
        check_dataset(tools.dataset(), inner, "train_ds")
