"""The group lasso as a step of its own after each step of training, for exact zeros."""

import tensorflow as tf

from keras_robust._keras import keras
from keras_robust.layers import GroupLasso

_KERNELS = ("Dense", "Conv1D", "Conv2D", "Conv3D")


class ProximalGroupLasso(keras.callbacks.Callback):
    """Shrinks groups of weights after each training step, and sets the small ones to zero.

    Proximal gradient descent on `loss + weight sum ||w||`: after the optimizer's step on the
    loss each group becomes `w max(0, 1 - rate weight / ||w||)`, with the learning rate that
    the optimizer has then, schedules included. With plain SGD that is the exact method. With
    momentum m it settles where the penalty weighs `(1 - m) weight`, since the optimizer's steps are
    that much longer than its rate; with Adam `weight` has no such meaning, but zeros are exact all
    the same. It works in any `fit`:
    of the model, of `kr.AdversarialTraining` or of `kr.Distillation`, with any `jit_compile`,
    since it runs between the steps. Do not give the layers a GroupLasso as a regularizer too,
    and no weight decay, which would shrink the groups that stay.

    Args:
        penalty: a `kr.layers.GroupLasso`.
        layers: names; None for every Dense and convolution that is trained, of which the last
            one, that makes the logits, is left out unless the groups are "channels" or "shapes".

    Raises:
        TypeError: `penalty` is no GroupLasso.
        ValueError: when training starts, a name that is not there or of a frozen layer, or no
            layer at all.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> model.compile("sgd", "mse")
    >>> lasso = kr.training.ProximalGroupLasso(kr.layers.GroupLasso(1e6))
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 2)), callbacks=[lasso], verbose=0)
    >>> float(np.abs(model.layers[0].get_weights()[0]).max())
    0.0
    """

    def __init__(self, penalty, *, layers=None):
        super().__init__()
        if not isinstance(penalty, GroupLasso):
            raise TypeError(
                f"`penalty` must be a kr.layers.GroupLasso, got {penalty!r}. Write "
                "ProximalGroupLasso(kr.layers.GroupLasso(1e-3))."
            )
        if isinstance(layers, str):
            raise TypeError(f"`layers` must be a sequence of names, write [{layers!r}].")
        self.penalty, self.layers = penalty, None if layers is None else tuple(layers)

    def on_train_begin(self, logs=None):
        self._kernels = [layer.kernel for layer in self._chosen()]
        self._step = tf.function(self._shrink, autograph=False)

    def on_train_batch_begin(self, batch, logs=None):
        self._before = self._iterations()

    def on_train_batch_end(self, batch, logs=None):
        optimizer = self.model.optimizer
        # Several at once with `steps_per_execution`, or where the objective takes several.
        steps = self._iterations() - self._before
        rate = optimizer.learning_rate
        if callable(rate):  # tf_keras returns the schedule itself.
            rate = rate(optimizer.iterations)
        self._step(tf.cast(tf.convert_to_tensor(rate), tf.float32) * float(steps))

    def _iterations(self) -> int:
        # Not int() of the variable, which under tf_keras may be mirrored over several devices.
        return int(tf.convert_to_tensor(self.model.optimizer.iterations))

    def _shrink(self, rate):
        for kernel in self._kernels:
            kernel.assign(self.penalty.proximal(kernel, rate))

    def _chosen(self) -> list:
        # Trainers hold the model that they train; other parts of them are not ours to shrink.
        trained = getattr(self.model, "model", self.model)
        offered = [each for each in trained._flatten_layers() if type(each).__name__ in _KERNELS]
        if self.layers is not None:
            names = [layer.name for layer in offered]
            twice = [name for name in self.layers if names.count(name) > 1]
            if twice:
                raise ValueError(
                    f"`layers` names {twice}, but several layers of the models inside have that "
                    "name. Give them different names."
                )
            found = dict(zip(names, offered, strict=True))
            missing = [name for name in self.layers if name not in found]
            if missing:
                raise ValueError(
                    f"`layers` names {missing}, which are no Dense or convolution of the model. "
                    f"It has {list(found)}."
                )
            frozen = [name for name in self.layers if not found[name].trainable]
            if frozen:
                raise ValueError(
                    f"`layers` names {frozen}, whose trainable is False. Leave them out, or set "
                    "trainable=True."
                )
            return [found[name] for name in self.layers]
        chosen = offered
        if not {"channels", "shapes"} & set(self.penalty.groups):
            chosen = chosen[:-1]
        chosen = [layer for layer in chosen if layer.trainable]
        if not chosen:
            raise ValueError(
                "The model has no Dense or convolution before its last one to shrink, or all are "
                "frozen. Name the `layers`."
            )
        return chosen
