"""Sizes, latencies, and the machine and versions that they belong to."""

import os
import platform

import tensorflow as tf

from keras_robust._keras import LEGACY, keras


def sizes_and_latency(artifact, image, runs: int, say) -> dict:
    """`bytes`, `gzip_bytes`, `size_of` and `latency_ms` of one artifact.

    Args:
        image: numpy `(1, ...)`.
        runs: timed calls.
        say: takes a line of progress.
    """
    found = artifact.sizes(image.shape[1:])
    found["latency_ms"] = artifact.latency_ms(image, runs)
    size = f"{found['bytes'] / 1000:,.1f} KB, " if found["bytes"] is not None else ""
    say(f"{artifact.name}: {size}{found['latency_ms']:.2f} ms an image")
    return found


def environment() -> dict:
    """Versions and machine, for the report."""
    # Here, because the package imports this module.
    import keras_robust

    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": {"name": "tf_keras" if LEGACY else "keras", "version": keras.__version__},
        "keras_robust": keras_robust.__version__,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "accelerators": [device.name for device in tf.config.list_physical_devices("GPU")],
    }
