"""Augmented batches: in [0, 1], labels by share, the same again for a seed, anew each epoch."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.data import augment
from keras_robust.data._augment import _in_range


@pytest.fixture
def data():
    """Each image holds its own number, far enough apart to tell who is in a mixture."""
    x = np.broadcast_to(np.arange(1, 9).reshape(8, 1, 1, 1) / 8, (8, 6, 5, 1)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, np.arange(8) % 4)).batch(8)


def first(dataset):
    return [np.asarray(part) for part in next(iter(dataset))]


def test_nothing_asked_nothing_changed(data):
    for one, other in zip(first(augment(data)), first(data), strict=True):
        np.testing.assert_array_equal(one, other)


def test_shifts_and_flips_move_pixels_only(rng):
    x = rng.uniform(0.1, 1, size=(64, 6, 5, 2)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, np.zeros(64, int))).batch(64)
    moved, _ = first(augment(data, shift=2, seed=1))
    seen = set()
    for image, result in zip(x, moved, strict=True):
        padded = np.pad(image, [(2, 2), (2, 2), (0, 0)])
        places = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if np.array_equal(padded[i : i + 6, j : j + 5], result)
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 15  # of 25
    flipped, _ = first(augment(data, flip=True))
    mirrored = [np.array_equal(one, other[:, ::-1]) for one, other in zip(flipped, x)]
    same = [np.array_equal(one, other) for one, other in zip(flipped, x)]
    assert np.all(np.logical_xor(mirrored, same)) and 15 < sum(mirrored) < 49


def test_mixup_shares_images_as_it_shares_labels(data):
    x, y = first(augment(data, mixup=1.0, classes=4, seed=3))
    plain, labels = first(data)
    assert y.shape == (8, 4) and np.allclose(y.sum(axis=1), 1)
    value = x[:, 0, 0, 0]
    np.testing.assert_allclose(x, np.broadcast_to(value.reshape(-1, 1, 1, 1), x.shape))
    # One share for the batch: own part and that of a partner, whom the image tells.
    shares = [y[i, labels[i]] for i in range(8) if y[i, labels[i]] < 1]
    assert len(shares) >= 2 and np.ptp(shares) < 1e-6
    partner = (value - shares[0] * plain[:, 0, 0, 0]) / (1 - shares[0])
    np.testing.assert_allclose(np.sort(partner), np.sort(plain[:, 0, 0, 0]), atol=1e-4)
    expected = shares[0] * np.eye(4)[labels]
    expected += (1 - shares[0]) * np.eye(4)[labels[np.round(8 * partner).astype(int) - 1]]
    np.testing.assert_allclose(y, expected, atol=1e-6)


def test_a_column_of_labels_is_a_vector(data):
    column = data.map(lambda x, y: (x, y[:, None]))
    for one, other in zip(*(first(augment(d, mixup=1.0, classes=4)) for d in (data, column))):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="`classes` must say how many"):
        augment(column, mixup=1.0)


def test_cutmix_shares_labels_by_area(data):
    plain, labels = first(data)
    areas = set()
    for x, y in augment(data.repeat(12), cutmix=1.0, classes=4, seed=2):
        for image, share, own, label in zip(x.numpy(), y.numpy(), plain, labels):
            kept = np.isclose(image, own[0, 0, 0])
            others = np.unique(image[~kept])
            assert len(others) <= 1
            if len(others):
                rows, columns = np.where(~kept[..., 0])
                assert (~kept).sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
                other = labels[round(8 * float(others[0])) - 1]
                wanted = kept.mean() * np.eye(4)[label] + (1 - kept.mean()) * np.eye(4)[other]
                np.testing.assert_allclose(share, wanted, atol=1e-6)
                areas.add(kept.sum())
    assert len(areas) > 4


def test_shares_are_betas(rng):
    """Mean 1/2, variance 1 / (4 (2 alpha + 1))."""
    x = np.zeros((2, 2, 2, 1), "float32")
    data = tf.data.Dataset.from_tensors((x, np.arange(2))).repeat(3000)
    for alpha in (0.3, 1.0):
        mixed = augment(data, mixup=alpha, classes=2)
        shares = np.array([y[0].numpy() for _, y in mixed])
        own = shares[:, 0][np.minimum(shares[:, 0], shares[:, 1]) < 1 - 1e-6]
        own = own[own < 1]  # Half of the images meet themselves.
        assert abs(own.mean() - 0.5) < 0.05
        assert own.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15)


def test_repeats_by_seed_and_differs_from_epoch_to_epoch(data):
    def epochs(seed):
        made = augment(data, shift=2, flip=True, mixup=0.4, cutmix=1.0, classes=4, seed=seed)
        return [first(made)[0] for _ in range(3)]

    one, same, other = epochs(5), epochs(5), epochs(6)
    for a, b in zip(one, same, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.any(one[0] != one[1]) and np.any(one[0] != other[0])


def test_rand_augment_stays_in_bounds_and_repeats(rng):
    x = rng.uniform(size=(4, 8, 8, 3)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, np.arange(4))).batch(4)
    runs = [first(augment(data, rand_augment=0.5, seed=3))[0] for _ in range(2)]
    np.testing.assert_array_equal(*runs)
    assert np.any(runs[0] != x) and runs[0].min() >= 0 and runs[0].max() <= 1


def test_training_on_mixed_labels_goes_on_after_an_interruption(cnn, blobs, tmp_path):
    from keras_robust._keras import keras

    x, y = blobs(24)

    def run(epochs, folder):
        data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(24, seed=0).batch(8)
        data = augment(data, shift=1, mixup=0.4, cutmix=1.0, classes=3)
        trainer = kr.AdversarialTraining(cnn(seed=1), kr.attacks.FGSM(0.05))
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        trainer.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
        trainer.fit(data, epochs=epochs, verbose=0, resume=folder)
        return trainer.model.get_weights()

    whole = run(3, tmp_path / "whole")
    run(1, tmp_path / "parts")
    for one, other in zip(whole, run(3, tmp_path / "parts"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_errors(data):
    with pytest.raises(TypeError, match="must be a tf.data.Dataset of batches"):
        augment([1, 2])
    with pytest.raises(ValueError, match="Batch single images"):
        augment(data.unbatch())
    for name, value in [("shift", 5), ("shift", 1.5), ("mixup", -1), ("rand_augment", 2)]:
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            augment(data, **{name: value})
    with pytest.raises(ValueError, match="`flip` must be True or False"):
        augment(data, flip=1)
    with pytest.raises(ValueError, match="`classes` must say how many"):
        augment(data, mixup=0.2)
    weighted = data.map(lambda x, y: (x, y, tf.ones(8)))
    with pytest.raises(ValueError, match="which mixed images cannot keep"):
        augment(weighted, cutmix=1.0, classes=4)
    assert len(augment(weighted, flip=True).element_spec) == 3


@pytest.mark.parametrize("settings", [{"rand_augment": 0.5}, {"mixup": 1.0, "classes": 4}, {}])
def test_whole_numbers_are_no_images(data, settings):
    whole = data.map(lambda x, y: (tf.cast(255 * x, tf.uint8), y))
    with pytest.raises(TypeError, match="floating point images, got dtype uint8. Scale them"):
        augment(whole, **settings)


def test_images_that_rand_augment_would_clip_are_refused(data):
    scaled = data.map(lambda x, y: (255 * x, y))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"images in \[0, 1\] for `rand"):
        first(augment(scaled, rand_augment=0.5))
    first(augment(scaled, flip=True, shift=1))  # Which clip nothing.
    for wrong in (-0.1, float("nan")):
        with pytest.raises(tf.errors.InvalidArgumentError, match="must hold these. Smallest and"):
            _in_range(tf.constant([0.5, wrong]), 0, 1, "these")


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
@pytest.mark.parametrize("by", [1, -1])
def test_labels_of_no_class_are_refused(data, mixing, by):
    shifted = data.map(lambda x, y: (x, y + by))
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels from 0 to `classes` - 1 = 3"):
        first(augment(shifted, classes=4, **{mixing: 1.0}))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_images_keep_their_precision(data, mixing, dtype):
    mixed = augment(data.map(lambda x, y: (tf.cast(x, dtype), y)), classes=4, **{mixing: 1.0})
    x, y = first(mixed)
    assert x.dtype == dtype and y.dtype == "float32"


def test_the_operations_of_rand_augment_are_those_of_the_batch():
    """As the docstring says: the layer draws them for all images at once."""
    from keras_robust.bridge._kerases import keras_3

    layer = keras_3().layers.RandAugment(value_range=(0.0, 1.0), num_ops=2, seed=0)
    layer.build((8, 6, 6, 1))
    assert layer.get_random_transformation(tf.zeros((8, 6, 6, 1)))["layer_idxes"].shape == (2,)
