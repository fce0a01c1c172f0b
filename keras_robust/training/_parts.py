"""A batch cut into parts that go through the network one after the other."""

import tensorflow as tf


def parts_of(count: int, tensors):
    """Yields the tensors' rows in `count` parts of about equal size, each with its share of all.

    Args:
        count: parts, >= 1; the rows must be as many at least.
        tensors: a structure of tensors `(rows, ...)`; None stays None.

    Yields:
        `(part, share, after)`: the part of the structure, its rows' share of all, a float or a
        scalar tensor, and `after`, to be called with what was computed from the part: what comes
        of the next one is computed later, so that the memory of both is not needed at once.

    Raises:
        ValueError: fewer rows than parts.
    """
    if count == 1:
        yield tensors, 1.0, lambda results: None
        return
    first = next(leaf for leaf in tf.nest.flatten(tensors) if leaf is not None)
    rows = first.shape[0]
    if rows is None:
        rows = tf.shape(first)[0]
        message = f"A batch has fewer rows than accumulate={count} parts. Use drop_remainder=True."
        assertion = tf.debugging.assert_greater_equal(rows, count, message)
        before = [] if assertion is None else [assertion]
    elif rows < count:
        raise ValueError(
            f"`accumulate`={count} parts cannot be made of a batch of {rows} rows. Make it smaller."
        )
    else:
        before = []

    def after(results):
        before[:] = [result for result in results if result is not None]

    for number in range(count):
        start, end = rows * number // count, rows * (number + 1) // count
        with tf.control_dependencies(before):
            part = tf.nest.map_structure(
                lambda leaf, start=start, end=end: None if leaf is None else leaf[start:end],
                tensors,
            )
        share = tf.cast(end - start, tf.float32) / tf.cast(rows, tf.float32)
        yield part, share, after


def check_count(accumulate, objective) -> None:
    """Raises `ValueError` unless `accumulate` parts of a batch can be trained on by `objective`."""
    whole = isinstance(accumulate, int) and not isinstance(accumulate, bool)
    if not whole or accumulate < 1 or (accumulate > 1 and objective.carries):
        raise ValueError(
            "`accumulate` must be a whole number >= 1, and 1 for an objective that carries "
            f"perturbations from step to step, got {accumulate!r} with {objective!r}."
        )


def check_reduction(count: int, loss) -> None:
    """Raises `ValueError` where the mean of `loss` over a batch is not that of its `count` parts.

    A function and the name of a loss are averaged by Keras.
    """
    for each in tf.nest.flatten(loss) if count > 1 else ():
        # "mean_with_sample_weight" divides by the weights of a part, not by its rows.
        reduction = getattr(each, "reduction", "mean")
        if reduction not in ("mean", "sum_over_batch_size", "auto"):
            raise ValueError(
                f"`loss` must have a mean for reduction with accumulate={count}, got "
                f"reduction={reduction!r}. Use reduction='sum_over_batch_size'."
            )


def check_last(count: int, examples, rows, x, **settings) -> None:
    """Raises `ValueError` where the last batch of arrays has fewer rows than `count` parts.

    Args:
        count: parts.
        examples: the arrays, None where nobody knows them.
        rows: size of a batch.
        x: as given to `fit`; how many rows the last batch of a dataset has is not known.
        **settings: of `fit`.
    """
    cut = settings.get("validation_split") or settings.get("steps_per_epoch")
    if examples is None or cut or isinstance(x, tf.data.Dataset):
        return
    total = int(examples[0].shape[0])
    last = total % rows or rows
    if last < count:
        raise ValueError(
            f"`x`: the last batch of {total} rows has {last}, fewer than accumulate={count} parts. "
            "Choose another batch_size, or leave rows out."
        )


class Gradients:
    """The sum of the parts' gradients, each by its share; None where all are."""

    def __init__(self):
        self.sum = None

    def add(self, gradients, share) -> list:
        """Adds those of a part, and returns the sum so far."""
        if isinstance(share, float):
            scaled = list(gradients)
        else:
            scaled = [
                None if g is None else tf.cast(share, g.dtype) * g for g in map(_dense, gradients)
            ]
        if self.sum is None:
            self.sum = scaled
        else:
            pairs = zip(self.sum, scaled, strict=True)
            self.sum = [new if old is None else old + new for old, new in pairs]
        return self.sum


def _dense(gradient):
    return None if gradient is None else tf.convert_to_tensor(gradient)
