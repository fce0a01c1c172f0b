"""Numpy functions as models: what they are asked, counted and refused."""

import gc
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr

X = np.linspace(0.2, 0.8, 12, dtype="float32").reshape(3, 4)
Y = np.array([0, 1, 0])
WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


def numpy_linear(x):
    assert isinstance(x, np.ndarray) and x.dtype == np.float32 and len(x)
    return x @ WEIGHTS


def test_gives_the_functions_logits_eager_and_in_graphs():
    box = kr.attacks.BlackBox(numpy_linear, classes=3)
    np.testing.assert_array_equal(box(X), X @ WEIGHTS)
    traced = tf.function(box).get_concrete_function(tf.TensorSpec([None, 4]))
    assert traced.output_shapes.as_list() == [None, 3]
    np.testing.assert_array_equal(traced(tf.constant(X)), X @ WEIGHTS)


def test_counts_rows_and_asks_nothing_for_none():
    box = kr.attacks.BlackBox(numpy_linear, classes=3)
    box(X)
    box(X[:2])
    assert box.queries == 5
    assert box(X[:0]).shape == (0, 3)
    assert box.queries == 5


def test_gives_the_same_examples_as_the_model_itself(cnn, blobs):
    model = cnn()
    x, y = blobs(12)
    attack = kr.attacks.Square(0.2, queries=30)
    box = kr.attacks.BlackBox(lambda x: model(x).numpy(), classes=3)
    np.testing.assert_allclose(attack(box, x, y, seed=4), attack(model, x, y, seed=4), atol=1e-6)


def test_attacks_compile_once(monkeypatch):
    monkeypatch.setattr(kr.attacks._black_box, "_threads_for_operations", lambda: 2)
    box = kr.attacks.BlackBox(numpy_linear, classes=3)
    attack = kr.attacks.Square(0.1, queries=3)
    attack(box, X, Y)
    compiled = kr.attacks._attack._functions[box]
    functions = dict(compiled)
    attack(box, X, Y, seed=1)
    assert dict(compiled) == functions and len(functions) == 1


def test_attacked_boxes_are_not_kept_alive():
    box = kr.attacks.BlackBox(numpy_linear, classes=3)
    kr.attacks.Square(0.1, queries=3)(box, X, Y)
    reference = weakref.ref(box)
    del box
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("attack", [kr.attacks.FGSM(0.1), kr.attacks.PGD(0.1, steps=12)])
def test_attacks_that_need_a_gradient_say_so(attack):
    box = kr.attacks.BlackBox(numpy_linear, classes=3)
    with pytest.raises(ValueError, match="no gradient with respect to its input.*numpy"):
        attack(box, X, Y)


def test_wrong_logits_are_refused():
    box = kr.attacks.BlackBox(lambda x: x, classes=3)
    with pytest.raises(
        ValueError, match=r"`predict` must return .* \(3, 3\) .* got shape \(3, 4\)"
    ):
        kr.attacks.Square(0.1)(box, X, Y)
    probabilities = kr.attacks.BlackBox(lambda x: np.full((len(x), 2), 0.5), classes=2)
    with pytest.raises(ValueError, match="`model` returned probabilities"):
        kr.attacks.Square(0.1)(probabilities, X, Y)


def test_settings_are_checked():
    with pytest.raises(TypeError, match="`predict` must be a function .* got str"):
        kr.attacks.BlackBox("model.tflite", classes=3)
    for classes in (1, 2.5, None):
        with pytest.raises(ValueError, match="`classes` must be an int >= 2"):
            kr.attacks.BlackBox(numpy_linear, classes=classes)


ONE_THREAD = """
import numpy as np
import tensorflow as tf
import keras_robust as kr

traced = tf.function(lambda x: tf.linalg.matvec(tf.constant([[1.0, -2.0], [-1.0, 2.0]]), x))
box = kr.attacks.BlackBox(lambda x: traced(tf.constant(x)).numpy(), 2)
x = np.full((1, 2), 0.5, "float32")
print(kr.attacks.Square(0.25, queries=50)(box, x, [1]).numpy().tolist())
"""


@pytest.mark.once
def test_one_thread_does_not_wait_for_itself():
    """A graph that waits for Python, which waits for a graph: as on one processor."""
    done = subprocess.run(
        [sys.executable, "-c", ONE_THREAD],
        env=os.environ | {"TF_NUM_INTEROP_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "[[0.75, 0.25]]", done.stderr
