"""Decay moves kernels alone, and by the rule."""

import numpy as np
import pytest

import keras_robust as kr
from keras_robust._keras import keras


def network():
    ones = keras.initializers.Ones()
    layers = [
        keras.layers.Dense(5, bias_initializer=ones),
        keras.layers.BatchNormalization(beta_initializer=ones),
        keras.layers.Dense(3, bias_initializer=ones),
    ]
    return keras.Sequential([keras.Input((4,)), *layers])


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.SGD(0.1, weight_decay=0.5),
        lambda: keras.optimizers.AdamW(0.1, weight_decay=0.5),
        lambda: keras.mixed_precision.LossScaleOptimizer(
            keras.optimizers.SGD(0.1, weight_decay=0.5)
        ),
    ],
    ids=["SGD", "AdamW", "scaled"],
)
def test_where_the_gradient_is_zero_kernels_shrink_by_the_rule(make):
    """Through the trainer: a loss that is zero leaves the decay alone."""
    model = network()
    before = [weight.numpy() for weight in model.trainable_variables]
    optimizer = make()
    assert kr.training.decay_kernels_only(optimizer, model) is optimizer
    trainer = kr.AdversarialTraining(model, kr.attacks.FGSM(0.1))
    trainer.compile(optimizer, loss=lambda y, logits: 0.0 * logits[:, 0])
    x = np.random.default_rng(0).uniform(size=(8, 4)).astype("float32")
    trainer.fit(x, np.zeros(8, int), batch_size=4, epochs=1, verbose=0)
    for old, weight in zip(before, model.trainable_variables, strict=True):
        share = (1 - 0.1 * 0.5) ** 2 if old.ndim > 1 else 1.0
        np.testing.assert_allclose(weight.numpy(), share * old, rtol=1e-6)


def test_refuses():
    model = network()
    with pytest.raises(ValueError, match="`optimizer` Adam has no weight decay"):
        kr.training.decay_kernels_only(keras.optimizers.Adam(), model)
    used = keras.optimizers.AdamW(weight_decay=0.1)
    used.build(model.trainable_variables)
    with pytest.raises(ValueError, match="is in use already"):
        kr.training.decay_kernels_only(used, model)
    optimizer = keras.optimizers.AdamW(weight_decay=0.1)
    with pytest.raises(TypeError, match="`model` must be a Keras model"):
        kr.training.decay_kernels_only(optimizer, lambda x: x)
    with pytest.raises(ValueError, match="'late' is not built"):
        late = keras.Sequential([keras.layers.Dense(3)], name="late")
        kr.training.decay_kernels_only(optimizer, late)
