"""Whether a model's gradient is there, and whether it is one that an attack can follow."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_robust import losses
from keras_robust.attacks._attack import call_logits
from keras_robust.evaluation._artifacts import Artifact

_IMAGES = 32
# From this share of images without any gradient on, an artifact is attacked as one without.
BLIND = 0.1


def look_at_gradients(artifact: Artifact, batch) -> Artifact:
    """The artifact with what its gradients on a few images say of it.

    A model through which no gradient comes loses its `gradient_model`. One that rounds (int8
    emulation, thermometer inputs, a sign) gets a version whose gradient passes straight through
    the rounding, if that makes a difference.
    """
    if artifact.gradient_model is None:
        return artifact
    images = tf.constant(batch[:_IMAGES], tf.float32)
    plain = _gradient(artifact.gradient_model, images)
    passed = _straight_through(artifact.gradient_model)
    through = None if passed is None else _gradient(passed, images)
    same = through is None or (plain is not None and _alike(plain, through))
    return dataclasses.replace(
        artifact,
        gradient_model=None if plain is None else artifact.gradient_model,
        straight_through=None if same else passed,
        no_gradient=1.0 if plain is None else float(np.mean(~plain.any(axis=1))),
    )


def _straight_through(model):
    from keras_robust.attacks import StraightThrough

    try:
        return StraightThrough(model)
    except (TypeError, ValueError, NotImplementedError):  # a model that it cannot rewrite
        return None


def _gradient(model, images) -> np.ndarray | None:
    """`(n, features)`: of the margin between the two likeliest classes; None if there is none."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        logits = call_logits(model, images)
        labels = tf.argmax(logits, axis=-1, output_type=tf.int32)
        margin = losses.margin(labels, logits)
    try:
        gradient = tape.gradient(margin, images)
    except LookupError:  # an operation without a registered gradient
        return None
    if gradient is None:
        return None
    gradient = np.asarray(gradient, np.float64).reshape(len(images), -1)
    return np.where(np.isfinite(gradient), gradient, 0.0)


def _alike(one, other) -> bool:
    return np.allclose(one, other, rtol=1e-3, atol=1e-3 * max(np.abs(one).max(), 1e-12))
