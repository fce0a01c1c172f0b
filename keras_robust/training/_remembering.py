"""Callbacks whose variables are part of the state of a run."""

import abc

import tensorflow as tf

from keras_robust._keras import keras


class Remembering(keras.callbacks.Callback, abc.ABC):
    """A callback whose variables are part of the state of a run.

    Attributes:
        created: its variables, None before training.
    """

    created: list[tf.Variable] | None = None

    @abc.abstractmethod
    def create_variables(self, trainer, model) -> list[tf.Variable]:
        """Makes them; called once.

        Args:
            trainer: the model that `fit` is called on.
            model: the model that it trains.
        """

    def variables_for(self, trainer) -> list[tf.Variable]:
        """Its variables, made at the first call.

        Raises:
            ValueError: they are of another model.
        """
        # A model trained without our trainer is its own.
        model = getattr(trainer, "model", trainer)
        if self.created is None:
            self.created, self._of = self.create_variables(trainer, model), model
        if model is not self._of:
            raise ValueError(
                f"This {type(self).__name__} holds variables of another model, {self._of.name!r}. "
                "Make a new one for each model."
            )
        return self.created

    def on_train_begin(self, logs=None):
        self.variables_for(self.model)
