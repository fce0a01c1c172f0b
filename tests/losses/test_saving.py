"""Models compiled with a loss of the package come back from their file."""

import numpy as np
import pytest

from keras_robust import losses
from keras_robust._keras import keras

ALL = [
    each
    for each in vars(losses).values()
    if isinstance(each, type) and issubclass(each, keras.losses.Loss)
]


@pytest.mark.parametrize("loss", ALL)
def test_a_compiled_model_can_be_loaded(loss, tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", loss(name="mine"))
    x = np.ones((2, 4), "float32")
    y = np.eye(3, dtype="float32")[[0, 1]]
    # The teacher's logits and the labels.
    y = np.stack([y, y], axis=1) if loss is losses.Distillation else y
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.loss) is loss and again.loss.get_config() == model.loss.get_config()
    np.testing.assert_allclose(again.evaluate(x, y, verbose=0), model.evaluate(x, y, verbose=0))
