"""A long attack needs the memory of one step."""

import json
import subprocess
import sys

import pytest
import tensorflow as tf

import keras_robust as kr

PEAKS = """if True:
    import json, resource
    import numpy as np
    import keras_robust as kr
    from keras_robust._keras import keras

    inputs = keras.Input((8,))
    x = keras.layers.Dense(2**15)(inputs)
    for _ in range(3):  # Each keeps 8 MiB for the way back: a step some 32.
        x = keras.layers.Activation("tanh")(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    batch = np.full((64, 8), 0.5, "float32"), np.arange(64) % 3
    peaks = []
    for steps in (8, 8, 64):
        trainer = kr.AdversarialTraining(model, kr.attacks.PGD(0.1, steps=steps))
        trainer.compile("sgd", jit_compile=False)
        trainer.fit(*batch, batch_size=64, epochs=2, verbose=0)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(peaks))
"""


def test_the_peak_of_a_training_step_is_that_of_a_short_attack():
    """In MiB; were 64 steps kept, it would be 1,800 more."""
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _, short, long = json.loads(done.stdout)
    assert long - short < 150


def kept_by(loop) -> list[str]:
    """The operations of a graph, and of what it calls, by which a loop keeps what it computed."""
    graph = tf.function(loop, autograph=False).get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    assert any("While" in node.op for node in nodes)
    return [node.op for node in nodes if node.op.startswith(("TensorList", "Stack"))]


@pytest.mark.parametrize(
    "attack",
    [
        kr.attacks.PGD(0.1, steps=64),
        kr.attacks.PGD(0.1, steps=64, momentum=0.9, restarts=2, early_stop=True),
        kr.attacks.APGD(0.1, steps=64),
    ],
)
def test_long_attacks_loop_and_keep_nothing(cnn, blobs, attack):
    model, (x, y) = cnn(), blobs(6)
    assert kept_by(lambda: attack(model, tf.constant(x), tf.constant(y))) == []


def test_a_loop_that_keeps_its_steps_is_seen():
    def loop():
        x = tf.ones([3])
        with tf.GradientTape() as tape:
            tape.watch(x)
            (end,) = tf.while_loop(
                lambda _: True, lambda z: (tf.sin(z),), (x,), maximum_iterations=9
            )
        return tape.gradient(end, x)

    assert kept_by(loop)
