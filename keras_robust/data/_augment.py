"""Random changes of training batches: vectorised, in [0, 1], and the same again for a seed."""

import numbers

import tensorflow as tf

from keras_robust._seed import fold, uniform
from keras_robust.bridge._kerases import keras_3


def augment(
    dataset: tf.data.Dataset,
    *,
    flip: bool = False,
    shift: int = 0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    rand_augment: float = 0.0,
    classes: int | None = None,
    seed: int = 0,
) -> tf.data.Dataset:
    """The batches of `dataset`, changed at random in each epoch anew.

    First RandAugment, then shift and flip, each image its own; then each batch is mixed by
    MixUp or by CutMix, one of the two at random where both are asked for, and its labels become
    shares of the classes. The random numbers follow from `seed`, the epoch and the batch: with
    a seeded shuffle before it, a run repeats, and goes on after `fit(resume=...)`, to the same
    weights. RandAugment's do not: they repeat in an uninterrupted run only.

    The values are looked at in every batch, as it is made: taking one here would move on a shuffle.

    Args:
        dataset: batches `(x, y)` or `(x, y, sample_weight)`: images `(batch, h, w, c)` float in
            [0, 1], labels `(batch,)` or `(batch, 1)` int or `(batch, classes)`.
        flip: mirror images left to right, half of them.
        shift: most pixels that an image is moved by each way; zeros come in.
        mixup: alpha of the Beta distribution of the shares, > 0; Zhang et al. 2018,
            https://arxiv.org/abs/1710.09412. One share a batch.
        cutmix: the same for a rectangle of another image, its share that of the area; Yun et
            al. 2019, https://arxiv.org/abs/1905.04899. 1 is the paper's.
        rand_augment: strength in (0, 1] of two operations, by Keras 3's layer; Cubuk et al. 2020,
            https://arxiv.org/abs/1909.13719. That layer draws the same two for a whole batch, and
            only how far they go for each image.
        classes: of integer labels from 0, needed for `mixup` and `cutmix`.
        seed: int.

    Returns:
        Batches of the same shapes; labels are float32 `(batch, classes)` where batches are
        mixed: give `compile` the loss `CategoricalCrossentropy(from_logits=True)`.

    Raises:
        TypeError: not a dataset, or one of images that are not floating point.
        ValueError: a setting out of its range, unbatched data, or sample weights to be mixed.
        tf.errors.InvalidArgumentError: when a batch is taken, images outside [0, 1] for
            `rand_augment`, or integer labels outside [0, classes) to be mixed.

    >>> x, y = np.random.default_rng(0).uniform(size=(6, 4, 4, 1)), np.arange(6) % 3
    >>> batches = tf.data.Dataset.from_tensor_slices((x.astype("float32"), y)).batch(6)
    >>> mixed, labels = next(iter(augment(batches, shift=1, cutmix=1.0, classes=3)))
    >>> mixed.shape, labels.shape
    (TensorShape([6, 4, 4, 1]), TensorShape([6, 3]))
    """
    _check(dataset, flip, shift, mixup, cutmix, rand_augment, classes)
    draws = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)
    if rand_augment:
        layer = keras_3().layers.RandAugment(
            value_range=(0.0, 1.0), num_ops=2, factor=rand_augment, seed=seed
        )

        unit = "images in [0, 1] for `rand_augment`, which clips: scale them, x / 255"

        # What resizing made a little larger is cut; images of 0 to 255 would be black and white.
        def augmented(x, *rest):
            with tf.control_dependencies([_in_range(x, -0.5, 1.5, unit)]):
                return tf.clip_by_value(layer(x), 0.0, 1.0), *rest

        # In order: the layer counts its calls.
        dataset = dataset.map(augmented)

    def change(batch, draw):
        x, y, *rest = batch
        seed = tf.cast(draw % 2**31, tf.int32)
        places, mirrored, chosen, *mixing = (fold(seed, number) for number in range(6))
        if shift:
            x = _shifted(x, shift, places)
        if flip:
            heads = uniform([tf.shape(x)[0], 1, 1, 1], mirrored) < 0.5
            x = tf.where(heads, tf.reverse(x, [2]), x)
        if mixup or cutmix:
            if _whole_numbers(y):
                y = tf.cast(tf.reshape(y, [-1]), tf.int32)
                labels = f"labels from 0 to `classes` - 1 = {classes - 1}"
                with tf.control_dependencies([_in_range(y, 0, classes - 1, labels)]):
                    y = tf.one_hot(y, classes)
            y = tf.cast(y, tf.float32)
            if mixup and cutmix:
                first = uniform([], chosen) < 0.5
                x, y = tf.cond(
                    first,
                    lambda: _mixed_up(x, y, mixup, mixing),
                    lambda: _cut_and_mixed(x, y, cutmix, mixing),
                )
            else:
                x, y = (_mixed_up if mixup else _cut_and_mixed)(x, y, mixup or cutmix, mixing)
        return x, y, *rest

    both = tf.data.Dataset.zip(dataset, draws)
    return both.map(change, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _shifted(x, most, seed):
    """Each image moved by up to `most` pixels each way."""
    rows, height, width = tf.shape(x)[0], x.shape[1], x.shape[2]
    by = tf.random.stateless_uniform([2, rows, 1], seed, 0, 2 * most + 1, tf.int32)
    padded = tf.pad(x, [(0, 0), (most, most), (most, most), (0, 0)])
    moved = tf.gather(padded, by[0] + tf.range(height), axis=1, batch_dims=1)
    moved = tf.gather(moved, by[1] + tf.range(width), axis=2, batch_dims=1)
    return tf.ensure_shape(moved, x.shape)


def _mixed_up(x, y, alpha, seeds):
    order, share = _partners(x, seeds[0]), _beta(alpha, seeds[1])
    shares = [tf.cast(share, each.dtype) for each in (x, y)]
    return tuple(s * each + (1 - s) * tf.gather(each, order) for s, each in zip(shares, (x, y)))


def _cut_and_mixed(x, y, alpha, seeds):
    """A rectangle of `1 - share` of the area, anywhere, cut at the edges as in the paper."""
    order, share = _partners(x, seeds[0]), _beta(alpha, seeds[1])
    sides = tf.constant([x.shape[1], x.shape[2]], tf.float32)
    half = sides * tf.sqrt(1 - share) / 2
    middle = sides * uniform([2], seeds[2])
    low, high = tf.round(middle - half), tf.round(middle + half)
    rows, columns = (
        (tf.range(x.shape[axis + 1], dtype=tf.float32) >= low[axis])
        & (tf.range(x.shape[axis + 1], dtype=tf.float32) < high[axis])
        for axis in (0, 1)
    )
    inside = rows[None, :, None, None] & columns[None, None, :, None]
    share = 1 - tf.reduce_mean(tf.cast(inside, tf.float32))
    mixed = tf.where(inside, tf.gather(x, order), x)
    return mixed, share * y + (1 - share) * tf.gather(y, order)


def _partners(x, seed):
    """Another image for each, at random; a few may meet themselves."""
    return tf.argsort(uniform([tf.shape(x)[0]], seed))


def _beta(alpha, seed):
    """A draw of Beta(alpha, alpha), by two of Gamma(alpha)."""
    one, other = tf.unstack(tf.random.stateless_gamma([2], seed, alpha))
    return one / tf.maximum(one + other, 1e-30)


def _in_range(values, least, most, wanted):
    """Operation that fails, naming what is `wanted`, where a value leaves [least, most]."""
    low, high = tf.reduce_min(values), tf.reduce_max(values)
    message = f"`dataset` must hold {wanted}. Smallest and largest of a batch:"
    return tf.debugging.Assert((low >= least) & (high <= most), [message, low, high])


def _whole_numbers(y) -> bool:
    """Whether labels are numbers of classes, as a vector or, as Keras's data sets, a column."""
    return y.shape.rank == 1 or (y.shape.rank == 2 and y.shape[-1] == 1)


def _check(dataset, flip, shift, mixup, cutmix, rand_augment, classes) -> None:
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(
            f"`dataset` must be a tf.data.Dataset of batches, got {type(dataset).__name__}. From "
            "arrays: tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=0).batch(128)."
        )
    spec = dataset.element_spec
    pairs = isinstance(spec, tuple) and len(spec) in (2, 3)
    if not pairs or spec[0].shape.rank != 4 or None in spec[0].shape[1:]:
        raise ValueError(
            "`dataset` must hold batches (x, y) of images (batch, height, width, channels), got "
            f"elements {spec}. Batch single images: dataset.batch(128)."
        )
    if not spec[0].dtype.is_floating:
        raise TypeError(
            f"`dataset` must hold floating point images, got dtype {spec[0].dtype.name}. Scale "
            "them: dataset.map(lambda x, y: (tf.cast(x, tf.float32) / 255.0, y))."
        )
    if not isinstance(flip, bool):
        raise ValueError(f"`flip` must be True or False, got {flip!r}.")
    whole = isinstance(shift, numbers.Integral) and not isinstance(shift, bool)
    if not whole or not 0 <= shift < min(spec[0].shape[1:3]):
        raise ValueError(f"`shift` must be a whole number of pixels >= 0, got {shift!r}.")
    ranges = {"mixup": (mixup, float("inf")), "cutmix": (cutmix, float("inf"))}
    for name, (value, most) in (ranges | {"rand_augment": (rand_augment, 1)}).items():
        if not (isinstance(value, numbers.Real) and 0 <= value <= most) or value == float("inf"):
            raise ValueError(f"`{name}` must be a number >= 0 (at most {most}), got {value!r}.")
    if not (mixup or cutmix):
        return
    if _whole_numbers(spec[1]) and not (isinstance(classes, int) and classes >= 2):
        raise ValueError(
            f"`classes` must say how many classes the integer labels have, got {classes!r}."
        )
    if len(spec) == 3:
        raise ValueError("`dataset` has sample weights, which mixed images cannot keep.")
