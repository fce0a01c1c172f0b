import json
import subprocess
import sys

import pytest
import tensorflow as tf

from keras_robust import distribute
from keras_robust.distribute import _strategy

TWO = {"worker": ["a:1", "b:2"]}


@pytest.fixture
def config(monkeypatch):
    def put(cluster, kind="worker", index=0):
        task = {"type": kind, "index": index}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))

    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.delenv("TPU_NAME", raising=False)
    return put


def test_one_device_needs_no_strategy(config):
    for kind in ("auto", "single"):
        assert distribute.strategy(kind) is tf.distribute.get_strategy()


@pytest.mark.parametrize(
    ("cluster", "tpu", "gpus", "kind"),
    [
        (TWO, "", 0, "multi_worker"),
        (TWO, "there", 2, "multi_worker"),
        ({"worker": ["a:1"]}, "", 1, "single"),
        (None, "there", 2, "tpu"),
        (None, "", 2, "mirrored"),
        (None, "", 1, "single"),
    ],
)
def test_auto_takes_what_there_is(config, monkeypatch, cluster, tpu, gpus, kind):
    """The strategies are not made: their devices are not there."""
    if cluster:
        config(cluster)
    monkeypatch.setenv("TPU_NAME", tpu)
    devices = [tf.config.LogicalDevice(f"/device:GPU:{i}", "GPU") for i in range(gpus)]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: devices)
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", lambda: "multi_worker")
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda names: ("mirrored", names))
    monkeypatch.setattr(_strategy, "_tpu", lambda: "tpu")
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: "single")
    assert _strategy._found() == kind
    names = [device.name for device in devices]
    expected = ("mirrored", names) if kind == "mirrored" else kind
    assert distribute.strategy("auto") == distribute.strategy() == expected


def test_workers_are_read_from_tf_config(config):
    assert distribute.workers() == [] and distribute.is_chief()
    config(TWO)
    assert distribute.workers() == ["a:1", "b:2"] and distribute.is_chief()
    config(TWO, index=1)
    assert not distribute.is_chief()
    config(TWO, index="0")  # Which TensorFlow takes too.
    assert distribute.is_chief()
    config({"chief": ["c:0"], **TWO})
    assert distribute.workers() == ["c:0", "a:1", "b:2"] and not distribute.is_chief()
    config({"chief": ["c:0"], **TWO}, kind="chief")
    assert distribute.is_chief()


@pytest.mark.parametrize("text", ["{", "[]", '{"cluster": 3}', '{"cluster": {"worker": "a:1"}}'])
def test_a_broken_tf_config_is_named(config, monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="TF_CONFIG must be JSON of a cluster"):
        distribute.strategy("auto")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("parameter_server", "is asynchronous"),
        ("cloud", "must be one of auto, single, mirrored, multi_worker, tpu, got 'cloud'"),
        ("multi_worker", "needs the workers' addresses in TF_CONFIG"),
        ("tpu", "found no TPU named 'local'"),
    ],
)
def test_what_cannot_be_had_says_so(config, kind, message):
    with pytest.raises(ValueError, match=message):
        distribute.strategy(kind)


def test_mirrored_takes_every_logical_cpu():
    code = """if True:
        import tensorflow as tf
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
        from keras_robust import distribute
        assert distribute.strategy("mirrored").num_replicas_in_sync == 2
        assert distribute.strategy("auto").num_replicas_in_sync == 1
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_batches_are_shared_out_by_example():
    data = distribute.shard_by_example(tf.data.Dataset.range(4).batch(2))
    policy = data.options().experimental_distribute.auto_shard_policy
    assert policy == tf.data.experimental.AutoShardPolicy.DATA
    assert [batch.tolist() for batch in data.as_numpy_iterator()] == [[0, 1], [2, 3]]
