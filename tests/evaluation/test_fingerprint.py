import numpy as np
import tensorflow as tf

from keras_robust.attacks import PGD
from keras_robust.evaluation._artifacts import open_artifact
from keras_robust.evaluation._fingerprint import artifact_hash, data_hash, fingerprint


def test_data_of_equal_labels_in_another_type_is_the_same():
    x = np.zeros((3, 2), np.float32)
    assert data_hash(x, np.array([0, 1, 2], np.int32)) == data_hash(x, np.array([0, 1, 2]))
    assert data_hash(x, np.array([0, 1, 2])) != data_hash(x, np.array([0, 2, 1]))


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
