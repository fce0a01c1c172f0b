"""What `compile` is given: an optimizer and a loss that fit the step, and the labels the loss."""

from keras_robust._keras import check_model, expects_probabilities, keras, new_optimizer

_SPARSE = "keras.losses.SparseCategoricalCrossentropy(from_logits=True)"
_VECTORS = "keras.losses.CategoricalCrossentropy(from_logits=True)"


def settled(optimizer, loss) -> tuple:
    """`(optimizer, loss)` with the default loss in the place of None.

    Raises:
        TypeError: one of the other Keras, or a legacy optimizer of tf_keras.
        ValueError: a loss that expects probabilities.
    """
    check_model(optimizer, "optimizer", "optimizer")
    check_model(loss, "loss", "loss")
    if loss is None:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if expects_probabilities(loss):
        raise ValueError(
            f"`loss`={loss!r} expects probabilities, but the model returns logits. Use for "
            f"instance {_SPARSE}."
        )
    return new_optimizer(optimizer), loss


def check_loss(loss, y, argument: str = "x") -> None:
    """Raises `ValueError` where `loss` is a cross-entropy of labels of another form than `y`.

    Args:
        loss: as compiled, or None; only Keras's own are known.
        y: labels.
        argument: of `fit`, what holds the labels.
    """
    vectors = y.shape.rank == 2 and y.shape[-1] != 1
    takes = None
    if vectors and type(loss) is keras.losses.SparseCategoricalCrossentropy:
        takes, other, change = "class numbers (batch,)", _VECTORS, "tf.argmax(y, axis=-1)"
    kinds = keras.losses.CategoricalCrossentropy, keras.losses.CategoricalFocalCrossentropy
    if not vectors and type(loss) in kinds:
        takes, other = "label vectors (batch, classes)", _SPARSE
        change = "one-hot labels, tf.one_hot(y, classes)"
    if takes is not None:
        raise ValueError(
            f"`loss` is a {type(loss).__name__}, which takes {takes}, but `{argument}` has labels "
            f"of shape {tuple(y.shape)}. Compile with loss={other}, or give {change}."
        )
