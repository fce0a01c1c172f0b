"""Hints: the lower layers of a student follow those of its teacher, before distillation."""

import tensorflow as tf

from keras_robust._checks import check_images
from keras_robust._keras import check_model, gradients_of, keras
from keras_robust.analysis._activations import cut_after


def fit_hints(student, teacher, layers: dict, x, *, optimizer="adam", seed: int = 0, **fit):
    """Trains the student's lower layers to say what the teacher's layers say.

    Romero et al. 2015, https://arxiv.org/abs/1412.6550, section 2.2, the first of its two
    stages: a projection on top of each student layer, a 1x1 convolution that is thrown away
    afterwards, regresses the teacher's activations by half the mean squared error. The second
    stage is `kr.Distillation(student, teacher)`. Layers above the guided ones stay as they are.

    Args:
        student: functional or built sequential Keras model; trained in place up to the layers.
        teacher: another; called in inference mode, its weights are left alone.
        layers: name of a student's layer -> name of the teacher's layer that guides it. Their
            outputs, `(batch, features)` or `(batch, height, width, channels)`, may differ in the
            last axis only.
        x: images, array `(n, ...)`, or a `tf.data.Dataset` of images or `(images, labels)`
            batches.
        optimizer: Keras optimizer or its name.
        seed: int, of the projections' first weights.
        **fit: as for `keras.Model.fit`: epochs, batch_size, verbose, callbacks.

    Returns:
        The Keras `History` with "loss", the sum over the layers.

    Raises:
        TypeError: not Keras models of this Keras, `layers` is no dict, or `seed` no int.
        ValueError: no layers, one that is missing or with nothing to train up to it, or outputs
            that differ in more than the last axis.

    >>> make = lambda width: keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(width, name="hidden"), keras.layers.Dense(3)]
    ... )
    >>> x = np.random.default_rng(0).uniform(size=(32, 4)).astype("float32")
    >>> history = fit_hints(make(5), make(8), {"hidden": "hidden"}, x, epochs=3, verbose=0)
    >>> history.history["loss"][-1] < history.history["loss"][0]
    True
    """
    if not isinstance(layers, dict):
        raise TypeError(
            f"`layers` must map the student's layers to the teacher's, got {layers!r}. Write for "
            "instance {'conv2': 'conv4'}."
        )
    if not layers:
        raise ValueError("`layers` is empty. Name a student's layer and the one that guides it.")
    if teacher is student:
        raise ValueError("`teacher` is the student itself, which needs no hints from it.")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"`seed` must be an int, got {seed!r}.")
    for model, argument in ((student, "student"), (teacher, "teacher")):
        check_model(model, argument)
    guided = [cut_after(student, name) for name in layers]
    guides = [cut_after(teacher, name) for name in layers.values()]
    for name, part in zip(layers, guided, strict=True):
        if not part.trainable_variables:
            raise ValueError(
                f"`layers` guides {name!r}, but the student has nothing to train up to there. Name "
                "a higher layer, or set trainable=True."
            )
    for (name, guide), part, wanted in zip(layers.items(), guided, guides, strict=True):
        own, other = tuple(part.output.shape), tuple(wanted.output.shape)
        if own[:-1] != other[:-1]:
            raise ValueError(
                f"`layers` guides {name!r} of shape {own} by {guide!r} of shape {other}, which "
                "must be equal but for the last axis. Name layers whose maps have one size."
            )
    projected = [
        keras.layers.Dense(
            wanted.output.shape[-1],
            kernel_initializer=keras.initializers.GlorotUniform(seed=seed + number),
        )(part.output)
        for number, (part, wanted) in enumerate(zip(guided, guides, strict=True))
    ]
    trainer = _Hints(keras.Model(student.inputs, projected), guides)
    trainer.compile(optimizer)
    if isinstance(x, tf.data.Dataset):
        fit.setdefault("shuffle", False)  # Keras 3 warns that it will not shuffle one.
        return trainer.fit(x.map(lambda images, *_: images), **fit)
    return trainer.fit(check_images(x), **fit)


class _Hints(keras.Model):
    """Trains `model`, whose outputs regress those of `guides`."""

    def __init__(self, model, guides):
        super().__init__()
        self.model = model
        # Out of Keras's sight: the guides are not trained.
        self._guide = lambda x: [guide(x, training=False) for guide in guides]
        self._loss_mean = keras.metrics.Mean(name="loss")
        self.built = True

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)

    def train_step(self, data):
        x = keras.utils.unpack_x_y_sample_weight(data)[0]
        wanted = [tf.stop_gradient(tf.cast(each, tf.float32)) for each in self._guide(x)]
        with tf.GradientTape() as tape:
            said = tf.nest.flatten(self.model(x, training=True))
            errors = [
                0.5 * tf.reduce_mean(tf.math.squared_difference(tf.cast(own, tf.float32), other))
                for own, other in zip(said, wanted, strict=True)
            ]
            loss = tf.add_n(errors + [tf.cast(added, tf.float32) for added in self.model.losses])
        variables = self.model.trainable_variables
        gradients = gradients_of(self, tape, loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self._loss_mean.update_state(loss)
        return {"loss": self._loss_mean.result()}
