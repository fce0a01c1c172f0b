"""That a step reads weights before it moves them, after TensorFlow optimized its graph too."""

import collections

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.framework import meta_graph
from tensorflow.python.grappler import tf_optimizer

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.training import objectives

READS = ("ReadVariableOp", "ResourceGather")
WRITES = ("Assign", "ResourceApply", "ResourceScatter")


def lost_orders(function, *arguments) -> tuple[list[tuple[str, str]], int]:
    """Pairs of a variable's accesses whose order Grappler lost, and how many pairs there were."""
    graph = tf.function(function).get_concrete_function(*arguments).graph
    exported = meta_graph.create_meta_graph_def(graph=graph)
    wanted = [node.name for node in (*graph.outputs, *graph.control_outputs)]
    exported.collection_def["train_op"].node_list.value.extend(wanted)
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.min_graph_nodes = -1
    before, after = exported.graph_def, tf_optimizer.OptimizeGraph(config, exported)
    left = {node.name for node in after.node}
    accesses = collections.defaultdict(list)
    for node in before.node:
        if node.op.startswith((*READS, *WRITES)) and node.name in left:
            accesses[node.input[0]].append(node)
    ordered, still = followers(before), followers(after)
    lost, count = [], 0
    for nodes in accesses.values():
        for one in nodes:
            others = nodes if one.op.startswith(WRITES) else [n for n in nodes if n.op not in READS]
            later = {other.name for other in others} & ordered(one.name)
            lost += [(one.name, name) for name in sorted(later - still(one.name))]
            count += len(later)
    return lost, count


def followers(graph):
    """What gives the names of the nodes that wait, one after the other, for a node."""
    direct = collections.defaultdict(list)
    for node in graph.node:
        for source in node.input:
            direct[source.lstrip("^").split(":")[0]].append(node.name)

    def of(name):
        seen, pending = set(), [name]
        while pending:
            new = [each for each in direct[pending.pop()] if each not in seen]
            seen.update(new)
            pending.extend(new)
        return seen

    return of


def test_a_lost_order_is_seen():
    """Optimizers of Keras join the gradients: for a while each waits for what all wait for."""
    weight, other, pool = tf.Variable(1.0), tf.Variable(2.0), tf.Variable(0.0)

    def step(x):
        pool.assign(3.0 * weight)
        mine, its = tf.raw_ops.IdentityN(input=[x + 1.0, pool * other])
        weight.assign_sub(mine)
        other.assign_sub(its)

    lost, count = lost_orders(step, tf.constant(1.0))
    assert count >= 3
    assert [name for pair in lost for name in pair if "AssignSub" in name]


def make_model():
    layers = keras.layers
    inputs = keras.Input((6,))
    x = layers.BatchNormalization()(layers.Dense(5, "relu", name="one")(inputs))
    return keras.Model(inputs, layers.Dense(3)(layers.Dense(4, "tanh", name="two")(x)))


def feedback(layers=None):
    attack = kr.attacks.PGD(0.2, "l2", steps=2)
    return kr.training.LayerFeedback(make_model(), attack, layers, pool=12)


def with_objective(objective):
    return kr.AdversarialTraining(make_model(), kr.attacks.PGD(0.1, steps=2), objective)


TRAINERS = {
    "LayerFeedback": feedback,
    "LayerFeedback, one layer": lambda: feedback(["two"]),
    "AWP of TRADES": lambda: with_objective(objectives.AWP(0.01, objectives.TRADES())),
    "Free": lambda: with_objective(objectives.Free(replays=2)),
}


@pytest.mark.parametrize("name", list(TRAINERS))
def test_no_order_is_lost(name, rng):
    trainer = TRAINERS[name]()
    trainer.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"], jit_compile=False)
    x, y = rng.uniform(size=(8, 6)).astype("float32"), (np.arange(8) % 3).astype("int32")
    trainer.fit(x, y, batch_size=8, verbose=0)
    batch = tf.constant(x), tf.constant(y)
    lost, count = lost_orders(lambda *batch: trainer.train_step(batch), *batch)
    assert not lost and count > 20
