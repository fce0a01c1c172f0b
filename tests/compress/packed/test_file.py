"""A packed model comes back bit for bit; anything else is refused by name."""

import os
import re
import subprocess
import sys
import zlib

import numpy as np
import pytest

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust.compress.packed import _file
from keras_robust.compress.packed._bytes import piece, varint
from keras_robust.compress.packed._words import COMMON

layers = keras.layers


def mixed():
    """Every kind of kernel, a nested model, a residual sum, BatchNormalization."""
    keras.utils.set_random_seed(4)
    inner = keras.Sequential([keras.Input((8, 8, 4)), layers.DepthwiseConv2D(3, padding="same")])
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(2.0, -1.0)(inputs)
    x = layers.Conv2D(4, 3, padding="same", name="first")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU()(layers.Add()([x, inner(x)]))
    x = layers.SeparableConv2D(6, 3)(x)
    x = layers.Dropout(0.2)(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Dense(5, kernel_regularizer="l2", name="last")(x))
    generator = np.random.default_rng(0)
    model.get_layer("norm").set_weights([generator.uniform(0.5, 2, 4) for _ in range(4)])
    return model


def small(values=((1.0, 0.0), (0.0, 1.0), (0.5, 0.0))):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="d")])
    model.layers[-1].set_weights([np.array(values, "float32"), np.zeros(2, "float32")])
    return model


def same_bits(one, other):
    pairs = list(zip(one.get_weights(), other.get_weights(), strict=True))
    return all(a.tobytes() == b.tobytes() and a.dtype == b.dtype for a, b in pairs)


def test_weights_and_outputs_are_bit_identical(tmp_path, rng):
    model, path = mixed(), tmp_path / "model.krz"
    size = kr.compress.pack(model, path)
    twin = kr.compress.unpack(path)
    assert path.stat().st_size == size < 4 * model.count_params() + 1500
    assert same_bits(model, twin)
    assert [w.name for w in twin.weights] == [w.name for w in model.weights]
    x = rng.random((5, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(model(x).numpy(), twin(x).numpy())
    assert twin.get_layer("last").kernel_regularizer is not None


def test_the_same_model_gives_the_same_bytes(tmp_path):
    model = mixed()
    for name in ("a", "b"):
        kr.compress.pack(model, tmp_path / name)
    kr.compress.pack(kr.compress.unpack(tmp_path / "a"), tmp_path / "c")
    contents = {(tmp_path / name).read_bytes() for name in "abc"}
    assert len(contents) == 1


def test_odd_numbers_come_back(tmp_path):
    bits = np.array([[0x7FC00001, 0x80000000], [0x7F800000, 0], [1, 0xFFC0BEEF]], np.uint32)
    model = small()
    model.layers[-1].kernel.assign(bits.view(np.float32))
    kr.compress.pack(model, tmp_path / "m")
    assert same_bits(model, kr.compress.unpack(tmp_path / "m"))


def test_a_compiled_model_packs_as_if_it_were_not(tmp_path):
    model = small()
    kr.compress.pack(model, tmp_path / "a")
    model.compile("adam", "mse")
    kr.compress.pack(model, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_compiled_models_inside_a_model(tmp_path):
    """How they are trained is not in the file, nor asked for where an older file tells it."""
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model = keras.Sequential([keras.Input((4,)), keras.layers.Rescaling(2.0), inner])
    kr.compress.pack(model, tmp_path / "a")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    inner.compile(keras.optimizers.Adam(), loss)
    kr.compress.pack(model, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert same_bits(model, kr.compress.unpack(tmp_path / "b"))


def test_mixed_precision_stays(tmp_path, cnn):
    model = cnn(dtype="mixed_float16")
    kr.compress.pack(model, tmp_path / "m")
    twin = kr.compress.unpack(tmp_path / "m")
    assert same_bits(model, twin)
    assert twin.layers[-1].compute_dtype == "float16"


def test_binary_weights_cost_a_bit(tmp_path, rng):
    model = keras.Sequential([keras.Input((500,)), layers.Dense(200, use_bias=False)])
    model.layers[-1].set_weights([np.where(rng.random((500, 200)) < 0.5, -0.1, 0.1)])
    size = kr.compress.pack(model, tmp_path / "m")
    assert 500 * 200 / 8 <= size <= 500 * 200 / 8 * 1.01 + 800
    assert same_bits(model, kr.compress.unpack(tmp_path / "m"))


def test_vectors_in_half_precision(tmp_path):
    model = mixed()
    exact = kr.compress.pack(model, tmp_path / "a")
    assert kr.compress.pack(model, tmp_path / "b", vectors="float16") < exact
    twin = kr.compress.unpack(tmp_path / "b")
    for before, after in zip(model.get_weights(), twin.get_weights(), strict=True):
        wanted = before.astype("float16").astype("float32") if before.ndim == 1 else before
        np.testing.assert_array_equal(after, wanted)
    model.get_layer("last").bias.assign([1e6] * 5)
    with pytest.raises(ValueError, match="'last' has a weight of 1e\\+06, too large"):
        kr.compress.pack(model, tmp_path / "b", vectors="float16")
    with pytest.raises(ValueError, match='`vectors` must be "float32" or "float16", got 16'):
        kr.compress.pack(model, tmp_path / "b", vectors=16)


def test_the_other_keras_unpacks_it(tmp_path, rng):
    pytest.importorskip("tf_keras")
    x = rng.random((3, 6)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, numpy as np, keras_robust as kr\n"
        "from keras_robust._keras import keras\n"
        "keras.utils.set_random_seed(1)\n"
        "L = keras.layers\n"
        "m = keras.Sequential([keras.Input((6,)), L.Dense(4, 'relu'), L.BatchNormalization(),"
        " kr.layers.LowRankDense(4, 2), L.Dense(2, name='end')])\n"
        "folder = sys.argv[1]\n"
        "kr.compress.pack(m, folder + '/m.krz')\n"
        "np.save(folder + '/y.npy', m(np.load(folder + '/x.npy')).numpy())\n"
        "np.save(folder + '/k.npy', m.get_layer('end').kernel.numpy())\n"
    )
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "0" if LEGACY else "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    twin = kr.compress.unpack(tmp_path / "m.krz")
    assert isinstance(twin, keras.Model)
    kernel = twin.get_layer("end").kernel.numpy()
    np.testing.assert_array_equal(kernel, np.load(tmp_path / "k.npy"))
    np.testing.assert_allclose(twin(x).numpy(), np.load(tmp_path / "y.npy"), atol=1e-6)
    assert kr.compress.size_report(tmp_path / "m.krz").total["parameters"] == 74


class Unregistered(layers.Layer):
    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def call(self, inputs):
        return inputs + 0.0 if self.size else inputs


def test_what_cannot_be_rebuilt_is_named(tmp_path):
    path = tmp_path / "m"
    path.write_bytes(b"as it was")
    inputs = keras.Input((4,))
    own = keras.Model(inputs, Unregistered(np.sin, name="mine")(inputs))
    with pytest.raises(ValueError, match="Layer 'mine' \\(Unregistered\\) of `model` cannot be"):
        kr.compress.pack(own, path)
    code = keras.Model(inputs, layers.Lambda(lambda x: 2 * x, name="code")(inputs))
    with pytest.raises(ValueError, match="Layer 'code' \\(Lambda\\)"):
        kr.compress.pack(code, path)
    with pytest.raises(ValueError, match="no weights yet"):
        kr.compress.pack(keras.Sequential([layers.Dense(2)]), path)

    class Own(keras.Model):
        pass

    with pytest.raises(ValueError, match="subclassed model \\(Own\\)"):
        kr.compress.pack(Own(), path)
    with pytest.raises(TypeError, match="`model` must be a Keras model, got function"):
        kr.compress.pack(lambda x: x, path)
    assert path.read_bytes() == b"as it was"
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_path_that_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        kr.compress.pack(small(), tmp_path)


@pytest.mark.parametrize("wrong", [None, 3, b"model.krz", ["model.krz"]])
def test_what_is_no_path_is_named(wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    says = re.escape(f"`path` must be a path such as 'model.krz', got {wrong!r}")
    with pytest.raises(TypeError, match=says):
        kr.compress.pack(small(), wrong)
    with pytest.raises(TypeError, match=says):
        kr.compress.unpack(wrong)
    # Said before the model is looked at, which may take long to code.
    with pytest.raises(TypeError, match=says):
        kr.compress.pack(None, wrong)


@pytest.mark.parametrize("wrong", [None, 3, "model.keras", keras.Sequential])
def test_what_is_no_model_is_named(wrong, tmp_path):
    path = tmp_path / "m"
    kind = type(wrong).__name__
    with pytest.raises(TypeError, match=f"`model` must be a Keras model, got {kind}. Write pack"):
        kr.compress.pack(wrong, path)
    assert not path.exists()


def test_no_file_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing.krz' cannot be unpacked: there is no such file"):
        kr.compress.unpack(tmp_path / "nothing.krz")
    with pytest.raises(ValueError, match="it is a folder"):
        kr.compress.unpack(tmp_path)
    foreign = tmp_path / "foreign"
    for content in (b"", b"PK\x03\x04 a zip file", _file.MAGIC):
        foreign.write_bytes(content)
        with pytest.raises(ValueError, match="foreign' cannot be unpacked: it is (no file|cut)"):
            kr.compress.unpack(foreign)
    later = _file.MAGIC + bytes([_file.VERSION + 1]) + bytes(20)
    foreign.write_bytes(later)
    with pytest.raises(ValueError, match="has version 2 of the format, this .* reads 1"):
        kr.compress.unpack(foreign)


def test_every_truncation_and_altered_byte_is_noticed(tmp_path):
    path = tmp_path / "m"
    kr.compress.pack(small(), path)
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match="cannot be unpacked"):
            _read(path)
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        with pytest.raises(ValueError, match="checksum is wrong|no file of|has version"):
            _read(path)


def _read(path):
    # All that looks at the bytes, without building a model a thousand times.
    try:
        _file.decode(_file.read(path)[1])
    except ValueError as error:
        raise ValueError(f"cannot be unpacked: {error}") from error


def forged(tmp_path, body):
    """A file whose checksum is right, though its content is not."""
    content = _file.MAGIC + bytes([_file.VERSION]) + body
    path = tmp_path / "forged"
    path.write_bytes(content + zlib.crc32(content).to_bytes(4, "little"))
    return path


def test_forged_files_are_refused(tmp_path):
    architecture = kr.compress.packed._architecture.serialize(small())
    weight = piece(b"float32") + bytes([2]) + varint(1 << 40) + varint(1 << 40) + piece(b"\0")
    cases = {
        "it announces [0-9,]+ bytes of weights": piece(architecture) + varint(1) + weight,
        "bytes are announced": varint(10**9),
        "architecture cannot be read": piece(b"\x01" + b"\xff" * 30) + varint(0),
        "unknown dtype 'evil'": piece(architecture) + varint(1) + piece(b"evil") + bytes(8),
        "has the dtype 'string'": piece(architecture) + varint(1) + piece(b"string") + bytes(8),
        "it holds \\[\\]": piece(architecture) + varint(0),
    }
    for message, body in cases.items():
        with pytest.raises(ValueError, match=f"forged' cannot be unpacked: .*{message}"):
            kr.compress.unpack(forged(tmp_path, body))


def test_an_architecture_that_is_no_model_is_refused(tmp_path):
    packer = zlib.compressobj(
        9, zlib.DEFLATED, -15, 9, zdict=kr.compress.packed._architecture.COMMON
    )
    text = packer.compress(b'{"class_name": "Dense", "module": "os"}') + packer.flush()
    with pytest.raises(ValueError, match="its architecture, .* cannot be built"):
        kr.compress.unpack(forged(tmp_path, piece(bytes([LEGACY]) + text) + varint(0)))


def test_the_common_text_is_that_of_version_1():
    assert (_file.VERSION, zlib.crc32(COMMON)) == (1, 831651814)
