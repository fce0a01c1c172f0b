"""A batch in parts: the gradient, the metrics and the weights of the whole batch."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.training._parts import Gradients, parts_of


@pytest.mark.parametrize(("rows", "count"), [(12, 3), (10, 4), (5, 5), (7, 1)])
@pytest.mark.parametrize("static", [True, False])
def test_parts_hold_every_row_once_and_their_shares_add_up(rows, count, static):
    def cut(x):
        found = list(parts_of(count, (x, None)))
        assert all(none is None for (_, none), _, _ in found)
        return [part for (part, _), _, _ in found], [tf.cast(s, tf.float32) for _, s, _ in found]

    signature = tf.TensorSpec([rows if static else None, 2], tf.float32)
    x = np.arange(2 * rows, dtype="float32").reshape(rows, 2)
    parts, shares = tf.function(cut, input_signature=[signature])(x)
    np.testing.assert_array_equal(np.concatenate(parts), x)
    assert len(parts) == count and max(map(len, parts)) - min(map(len, parts)) <= 1
    np.testing.assert_allclose(shares, [len(part) / rows for part in parts], rtol=1e-6)


def test_gradients_are_summed_by_share_and_none_stays_none():
    total = Gradients()
    total.add([tf.constant([1.0]), None], tf.constant(0.25))
    both = total.add([tf.constant([3.0]), None], tf.constant(0.75))
    assert both[0].numpy() == [2.5] and both[1] is None


def trained(model, data, accumulate, jit=False, objective=None, weights=None):
    attack = kr.attacks.PGD(0.1, steps=2, random_start=False)
    trainer = kr.AdversarialTraining(model, attack, objective, accumulate=accumulate)
    momentum = keras.optimizers.SGD(0.1, momentum=0.9)
    trainer.compile(momentum, metrics=["accuracy"], jit_compile=jit)
    x, y = data
    weights = None if weights is None else {"sample_weight": weights}
    logs = trainer.fit(
        x, y, batch_size=len(x) // 2, epochs=2, shuffle=False, verbose=0, **(weights or {})
    )
    return model.get_weights(), logs.history


@pytest.mark.parametrize(("jit", "objective"), [(False, None), (True, kr.objectives.Mixed(0.5))])
def test_trains_what_the_whole_batch_trains(cnn, blobs, jit, objective):
    data = blobs(24)
    whole, logs = trained(cnn(seed=1), data, 1, objective=objective)
    parts, same = trained(cnn(seed=1), data, 4, jit, objective)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    for name in logs:
        np.testing.assert_allclose(logs[name], same[name], rtol=1e-4)


def test_parts_of_unequal_size_and_weighted_rows(cnn, blobs, rng):
    data, weights = blobs(20), rng.uniform(0.5, 1.5, 20).astype("float32")
    whole, logs = trained(cnn(seed=1), data, 1, weights=weights)
    parts, same = trained(cnn(seed=1), data, 3, weights=weights)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    np.testing.assert_allclose(logs["loss"], same["loss"], rtol=1e-4)


def test_mixed_precision_scales_the_loss_once(cnn, blobs):
    data = blobs(24)
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        whole, _ = trained(cnn(seed=1), data, 1)
        parts, _ = trained(cnn(seed=1), data, 2)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=5e-3)


def test_random_starts_differ_from_part_to_part(blobs):
    """The same image twice, in two parts: two perturbations, as in a whole batch."""
    x, y = blobs(2)
    x, y = np.repeat(x[:1], 2, axis=0), np.repeat(y[:1], 2)
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    seen = []

    class Look(kr.objectives.Madry):
        def minimise(self, step, x, x_adv, y, sample_weight):
            tf.py_function(lambda value: seen.append(value.numpy()), [x_adv], [])
            return super().minimise(step, x, x_adv, y, sample_weight)

    trainer = kr.AdversarialTraining(
        model, kr.attacks.PGD(0.1, steps=1, step_size=0.01), Look(), accumulate=2
    )
    trainer.compile(keras.optimizers.SGD(0.0))
    trainer.fit(x, y, batch_size=2, verbose=0)
    assert len(seen) == 2 and np.any(seen[0] != seen[1])


def test_errors(cnn, blobs):
    attack = kr.attacks.PGD(0.1)
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match="`accumulate` must be a whole number >= 1"):
            kr.AdversarialTraining(cnn(), attack, accumulate=wrong)
    with pytest.raises(ValueError, match="carries perturbations"):
        kr.AdversarialTraining(cnn(), attack, kr.objectives.Free(2), accumulate=2)
    trainer = kr.AdversarialTraining(cnn(), attack, accumulate=5)
    trainer.compile("sgd")
    data = tf.data.Dataset.from_tensor_slices(blobs(4)).batch(4, drop_remainder=True)
    with pytest.raises(ValueError, match="cannot be made of a batch of 4 rows"):
        trainer.fit(data, verbose=0)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_loss_that_is_no_mean_is_refused(cnn, reduction):
    """The parts' gradients are added up by their share of the rows, as those of a mean are."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    trainer = kr.AdversarialTraining(cnn(), kr.attacks.FGSM(0.1), accumulate=2)
    for given in (loss, [loss]):
        with pytest.raises(ValueError, match="must have a mean for reduction .*accumulate=2"):
            trainer.compile("sgd", given)
    kr.AdversarialTraining(cnn(), kr.attacks.FGSM(0.1)).compile("sgd", loss)


@pytest.mark.parametrize("jit", [False, True])
def test_arrays_whose_last_batch_is_too_small_are_refused_before_training(cnn, blobs, jit):
    model = cnn()
    before = model.get_weights()
    trainer = kr.AdversarialTraining(model, kr.attacks.FGSM(0.1), accumulate=4)
    trainer.compile("sgd", jit_compile=jit)
    with pytest.raises(ValueError, match="last batch of 27 rows has 3, fewer than accumulate=4"):
        trainer.fit(*blobs(27), batch_size=8, verbose=0)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    trainer.fit(*blobs(28), batch_size=8, verbose=0)
    trainer.fit(*blobs(27), batch_size=8, steps_per_epoch=3, verbose=0)
