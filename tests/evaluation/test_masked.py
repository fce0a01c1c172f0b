"""Models whose gradient hides their weakness: PGD believes them, the default does not."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.attacks import PGD
from keras_robust.evaluation import evaluate

pytestmark = pytest.mark.once

EPS = 8 / 255
QUIET = {"progress": False, "latency_runs": 1, "eps_sweep": ()}


@pytest.fixture
def task(rng):
    """A linear model with 4 classes, and images all of which a perturbation of 6/255 breaks."""
    weights = tf.constant(rng.normal(size=(36, 4)), tf.float32)
    x = rng.uniform(0.3, 0.7, size=(600, 6, 6, 1)).astype("float32")
    logits = (x.reshape(-1, 36) @ weights.numpy()).astype(np.float64)
    first, second = np.argsort(-logits, axis=1)[:, :2].T
    rows = np.arange(len(x))
    gap = np.abs(weights.numpy().T[first] - weights.numpy().T[second]).sum(1)
    weak = (logits[rows, first] - logits[rows, second]) / gap < 6 / 255
    x, y = x[weak][:24], first[weak][:24]
    assert len(x) == 24
    return lambda x: tf.reshape(x, [-1, 36]) @ weights, x, y


def evaluated(masked, x, y):
    """The default evaluation of a model that PGD overestimates by more than 30 points."""
    alone = PGD(EPS, steps=20)(masked, x, y)
    believed = np.mean(masked(alone).numpy().argmax(-1) == y)
    data = evaluate({"m": masked}, x, y, **QUIET).to_dict()
    worst = data["artifacts"]["m"]["worst_case"]
    assert believed > 0.8 and worst < 0.2
    return data


def test_saturated_logits_are_exposed(task):
    model, x, y = task
    # Beyond a margin of 103 a float32 softmax has a gradient of exactly zero.
    data = evaluated(lambda x: 40 * tf.nn.softmax(1e4 * model(x)), x, y)
    broken = data["artifacts"]["m"]["broken_by"]
    # Scores are as flat as the gradient: only decisions say where the boundary is.
    (broken,) = (n for label, n in broken.items() if label.startswith("HopSkipJump"))
    assert broken > 0.5 * len(x)
    assert "gradient of exactly zero on 100% of the images" in " ".join(data["notes"])


def test_a_rounding_layer_is_exposed(task):
    model, x, y = task

    def masked(x):
        # A gradient that leads astray beside the one that rounding hides.
        return model(tf.round(x * 255) / 255) + 1e-3 * tf.sin(100 * x[:, 0, :4, 0])

    found = evaluated(masked, x, y)["artifacts"]["m"]
    through = found["sources"]["PGD-20"]["m (straight-through)"]
    assert through > 0.8 * len(x) and found["sources"]["PGD-20"]["m"] < 0.2 * len(x)


def test_rounding_alone_has_no_gradient_and_needs_no_twin(task):
    model, x, y = task
    artifacts = {"m": lambda x: model(tf.round(x * 255) / 255)}
    data = evaluate(artifacts, x, y, [PGD(EPS, steps=5)], black_box=False, **QUIET).to_dict()
    found = data["artifacts"]["m"]
    assert list(found["sources"]["PGD-5"]) == ["m (straight-through)"]
    assert found["worst_case"] < 0.2
