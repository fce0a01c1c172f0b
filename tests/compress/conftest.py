"""Tiny models, data that they learn, and a stage run on its own."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust._keras import keras

SHAPE, CLASSES = (8, 8, 1), 4


def make_model(seed=3):
    """Rescaling, two convolutions (one with a ReLU layer, one with its own), two Dense."""
    layers = keras.layers
    starts = [keras.initializers.GlorotUniform(seed=seed + i) for i in range(4)]
    inputs = keras.Input(SHAPE)
    x = layers.Rescaling(2.0, -1.0, name="scale")(inputs)
    x = layers.Conv2D(8, 3, padding="same", kernel_initializer=starts[0], name="conv_a")(x)
    x = layers.ReLU()(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(8, 3, activation="relu", kernel_initializer=starts[1], name="conv_b")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(12, kernel_initializer=starts[2], name="hidden")(x)
    x = layers.ReLU()(x)
    x = layers.Dropout(0.1)(x)
    return keras.Model(inputs, layers.Dense(CLASSES, kernel_initializer=starts[3], name="out")(x))


def make_data(count=128, seed=0):
    """Images whose class is the pair of rows that is bright."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, CLASSES, count).astype("int32")
    x = generator.uniform(0, 0.4, (count, *SHAPE)).astype("float32")
    for row, label in enumerate(y):
        x[row, 2 * label : 2 * label + 2] += 0.5
    return x, y


def make_dataset(count=128, batch=32):
    return tf.data.Dataset.from_tensor_slices(make_data(count)).batch(batch)


def make_block_model():
    """As in ResNetV2: BatchNormalization before an activation, an Add, and a last one."""
    layers = keras.layers
    keras.utils.set_random_seed(1)
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    y = layers.BatchNormalization(name="pre")(x)
    y = layers.ReLU()(y)
    y = layers.Conv2D(8, 3, padding="same", use_bias=False)(y)
    y = layers.BatchNormalization(name="fused")(y)
    y = layers.Activation("relu")(y)
    y = layers.Conv2D(8, 3, padding="same")(y)
    x = layers.Add()([x, y])
    x = layers.BatchNormalization(name="post")(x)
    x = layers.Activation("elu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(CLASSES)(x))
    generator = np.random.default_rng(0)
    for name in ("pre", "fused", "post"):
        layer = model.get_layer(name)
        layer.set_weights([generator.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


def run_stage(stage, model, context, dataset, jit_compile=False, passes=1):
    """Wraps, trains and strips; `passes` forward passes in training mode a step."""
    wrapped = stage.wrap(model, context)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer = Twice(wrapped, passes)
    trainer.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=jit_compile)
    callbacks = stage.callbacks(wrapped, context)
    trainer.fit(dataset, epochs=context.epochs, callbacks=callbacks, verbose=0)
    return stage.strip(wrapped, model)


class Twice(keras.Model):
    """Holds a model and calls it `passes` times a step, as TRADES does."""

    def __init__(self, inner, passes):
        super().__init__()
        self.inner = inner
        self.passes = passes

    def call(self, x, training=None):
        for _ in range(self.passes if training else 1):
            logits = self.inner(x, training=training)
        return logits


@pytest.fixture(scope="session")
def tools():
    """The helpers above, for files that cannot import this one."""

    class Tools:
        model = staticmethod(make_model)
        data = staticmethod(make_data)
        dataset = staticmethod(make_dataset)
        block_model = staticmethod(make_block_model)
        run_stage = staticmethod(run_stage)
        shape = SHAPE
        classes = CLASSES

    return Tools


@pytest.fixture
def ill_fitting():
    """Of batches: training and validation data of which one cannot be, and what is said of it."""
    return lambda data: (
        (data.repeat(), data, "`train_ds` never ends"),
        (data, data.repeat(), "`validation_data` never ends"),
        (data.map(lambda x, y: (x[:, :5], y)), data, "`train_ds` gives inputs of shape"),
        (data, data.map(lambda x, y: (x, y + 7)), "`validation_data labels` must be in"),
    )
