import numpy as np
import tensorflow as tf

from keras_robust.attacks import PGD
from keras_robust.evaluation._artifacts import open_artifact
from keras_robust.evaluation._fingerprint import (
    array_hash,
    artifact_hash,
    data_hash,
    describe,
    fingerprint,
)


def test_arrays_differ_by_value_shape_and_type():
    base = np.arange(6, dtype=np.float32)
    others = [base + 1, base.reshape(2, 3), base.astype(np.float64), base[:5]]
    assert len({array_hash(array) for array in [base, *others]}) == 5
    assert array_hash(base) == array_hash(np.arange(6, dtype=np.float32))
    assert array_hash(base.reshape(2, 3).T) == array_hash(base.reshape(2, 3).T.copy())


def test_data_of_equal_labels_in_another_type_is_the_same():
    x = np.zeros((3, 2), np.float32)
    assert data_hash(x, np.array([0, 1, 2], np.int32)) == data_hash(x, np.array([0, 1, 2]))
    assert data_hash(x, np.array([0, 1, 2])) != data_hash(x, np.array([0, 2, 1]))


def test_attacks_are_described_without_addresses(cnn):
    def loss(labels, logits):
        return logits[:, 0]

    assert " at 0x" in repr(PGD(0.1, loss=loss)) and " at 0x" not in describe(PGD(0.1, loss=loss))
    assert describe(PGD(0.1)) != describe(PGD(0.2))
    model = cnn()
    before = describe({"model": [model], "array": np.ones(3)})
    assert describe({"model": [model], "array": np.ones(3)}) == before
    model.set_weights([2 * weight for weight in model.get_weights()])
    assert describe({"model": [model], "array": np.ones(3)}) != before
    assert describe(np.ones(2000)) != describe(np.r_[np.ones(1000), 0, np.ones(999)])


def test_artifacts_differ_by_weights_bytes_and_answers(cnn, saved_model, tflite_file):
    def model(x):
        return tf.stack([x[:, 0], x[:, 1]], -1)

    labels = np.zeros(4, int)
    network = open_artifact("m", cnn(), "m")
    before = artifact_hash(network, labels)
    assert artifact_hash(network, labels) == before != artifact_hash(network, labels + 1)
    network.origin.set_weights([2 * w for w in network.origin.get_weights()])
    assert artifact_hash(network, labels) != before
    file = tflite_file(model, 2)
    folder = saved_model(model, 2)
    for path, part in ((file, file), (folder, folder / "saved_model.pb")):
        opened = open_artifact("m", path, "m")
        before = artifact_hash(opened, labels)
        part.write_bytes(part.read_bytes() + b"\0")
        assert artifact_hash(opened, labels) != before
    assert artifact_hash(open_artifact("m", model, "m"), labels) != artifact_hash(network, labels)


def test_fingerprint_names_everything():
    from keras_robust.evaluation._columns import make_columns

    artifact = open_artifact("m", lambda x: x, "m")
    columns = make_columns({"a": PGD(0.1)}, 2)
    x, y = np.zeros((2, 2), np.float32), np.zeros(2, int)
    found = fingerprint(x, y, columns, {"m": artifact}, {"m": y}, {"seed": 3})
    assert set(found) == {
        "x",
        "y",
        "attacks['a']",
        "the order of attacks",
        "artifacts['m']",
        "seed",
        "the version of keras_robust",
        "the version of TensorFlow",
    }
