"""The `tf.distribute` strategy for the devices and machines at hand."""

import json
import os

import tensorflow as tf

_KINDS = ("auto", "single", "mirrored", "multi_worker", "tpu")


def strategy(kind: str = "auto") -> tf.distribute.Strategy:
    """The strategy to build and compile a model under, with `strategy.scope()`.

    Call it before anything else of TensorFlow: workers connect when the program starts. The
    batch size of the dataset given to `fit` is the global one, which the replicas share.

    Args:
        kind: one of
            "auto": several workers when TF_CONFIG names them, else a TPU when TPU_NAME names
            one, else all GPUs when there are several, else the one device there is;
            "single": no distribution;
            "mirrored": every GPU of this machine, or every logical CPU where there is none;
            "multi_worker": the workers of TF_CONFIG;
            "tpu": the TPU of TPU_NAME, or the local one.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        ValueError: an unknown kind; "multi_worker" without TF_CONFIG; "parameter_server", whose
            workers step without waiting for each other, so that an example would be made with
            other weights than it is trained on.

    >>> kr.distribute.strategy("single").num_replicas_in_sync
    1
    """
    if kind == "parameter_server":
        raise ValueError(
            "`kind`='parameter_server' is asynchronous: examples made with some weights would "
            "train others, and no run could be repeated. Use 'multi_worker'."
        )
    if kind not in _KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(_KINDS)}, got {kind!r}.")
    if kind == "auto":
        kind = _found()
    if kind == "multi_worker":
        if not workers():
            raise ValueError(
                "`kind`='multi_worker' needs the workers' addresses in TF_CONFIG. On one machine "
                "start them with `keras-robust train --workers 2`; on a cluster set in each "
                'worker {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", '
                '"index": 0}}.'
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    if kind == "mirrored":
        return tf.distribute.MirroredStrategy(_devices())
    if kind == "tpu":
        return _tpu()
    return tf.distribute.get_strategy()


def workers() -> list[str]:
    """Addresses of the workers in TF_CONFIG, the chief first; empty without it.

    Raises:
        ValueError: TF_CONFIG is not JSON of a cluster.
    """
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        cluster = json.loads(text).get("cluster", {})
        addresses = [cluster.get(kind, []) for kind in ("chief", "worker")]
        if not all(isinstance(each, list) for each in addresses):
            raise TypeError(f"its addresses must be lists, got {addresses}")
        return sum(addresses, [])
    except (json.JSONDecodeError, AttributeError, TypeError) as error:
        raise ValueError(f"TF_CONFIG must be JSON of a cluster and a task: {error}.") from None


def worker_index() -> int:
    """The place of this process among `workers()`, 0 for the chief or the only one.

    >>> kr.distribute.worker_index()
    0
    """
    if len(workers()) < 2:
        return 0
    config = json.loads(os.environ["TF_CONFIG"])
    task = config.get("task", {})
    before = 0 if task.get("type") == "chief" else len(config["cluster"].get("chief", []))
    return before + int(task.get("index", 0))


def is_chief() -> bool:
    """Whether this process writes the files: worker 0, or the only one.

    >>> kr.distribute.is_chief()
    True
    """
    return worker_index() == 0


def shard_by_example(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """`dataset` such that each global batch is shared among the workers, example by example.

    Without it TensorFlow may share out files, and a global batch holds other examples than
    that of one worker.
    """
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def _found() -> str:
    if len(workers()) > 1:
        return "multi_worker"
    if os.environ.get("TPU_NAME"):
        return "tpu"
    return "mirrored" if len(tf.config.list_logical_devices("GPU")) > 1 else "single"


def _devices() -> list[str]:
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return [device.name for device in tf.config.list_logical_devices(kind)]


def _tpu():
    name = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        raise ValueError(
            f"`kind`='tpu' found no TPU named {name!r} ({str(error)[:200]}). Set TPU_NAME, or use "
            "'auto'."
        ) from None
    return tf.distribute.TPUStrategy(resolver)
