"""Files made to hurt, their checksums right: refused by `ValueError`, within bounded memory."""

import subprocess
import sys
import textwrap

import pytest

from keras_robust._keras import LEGACY

# In a process of its own, for a limit of memory cannot be taken back.
START = textwrap.dedent(
    """
    import json, pathlib, resource, sys, zlib
    import numpy as np
    import keras_robust as kr
    from keras_robust._keras import LEGACY, keras
    from keras_robust.compress.packed import _architecture, _file, _tensor
    from keras_robust.compress.packed._bytes import Reader, piece, varint

    PATH = pathlib.Path(sys.argv[1]) / "m.krz"

    def small(units=2):
        model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(units, name="d")])
        kernel = np.zeros((7, units), "float32")
        kernel[::3] = np.arange(units) + 1
        model.set_weights([kernel, np.zeros(units, "float32")])
        return model

    def limit(extra):
        status = pathlib.Path("/proc/self/status").read_text()
        now = 1024 * int(status.split("VmSize:")[1].split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (now + extra, now + extra))

    def unpacked(body):
        content = _file.MAGIC + bytes([_file.VERSION]) + body
        PATH.write_bytes(content + zlib.crc32(content).to_bytes(4, "little"))
        return kr.compress.unpack(PATH)

    def refused(body, message):
        try:
            unpacked(body)
        except ValueError as error:
            assert message in str(error), error
        else:
            raise AssertionError(f"not refused: {message}")

    def weight(kind, shape, coded):
        return piece(kind) + bytes([len(shape)]) + b"".join(map(varint, shape)) + piece(coded)

    kr.compress.pack(small(), PATH)  # What is loaded late is loaded before the limit.
    kr.compress.unpack(PATH)
    OWN = PATH.read_bytes()[5:-4]
    ARCHITECTURE = piece(Reader(OWN).piece())
    """
)

LARGE = """
limit(1 << 29)
# Of a weight that the architecture does not have, none is decoded.
few = b"\\0" + 8 * b"\\1\\0\\1"
one = weight(b"float64", (1 << 27,), few)
refused(ARCHITECTURE + varint(1) + one, "it holds [((134217728,), 'float64')]")
kernel = weight(b"int8 of 1", (7, 2), _tensor.encode(np.ones((7, 2), "int8")))
# Nor are codes multiplied by a range that would blow them up.
wide = small(1 << 12)
kr.compress.pack(wide, PATH)
start = piece(Reader(PATH.read_bytes()[5:-4]).piece()) + varint(2)
codes = weight(b"int8 of 1", (7, 1 << 12), _tensor.encode(np.ones((7, 1 << 12), "int8")))
refused(start + codes + weight(b"float32", (1 << 12, 1), b""), "its architecture has weights")
stored = [
    _file.Stored(np.dtype("int8"), "1", (1 << 16,), _tensor.encode(np.ones(1 << 16, "int8")), 0),
    _file.Stored(
        np.dtype("float32"), None, (1 << 16, 1), _tensor.encode(np.ones((1 << 16, 1), "f4")), 0
    ),
]
try:
    _file.decode(stored)
except ValueError as error:
    assert "its codes and their range do not fit" in str(error), error
else:
    raise AssertionError("multiplied")
# Places and values in places and values, a thousand times, of a thousand bytes each.
level = bytes([_tensor._SPARSE]) + piece(bytes([0]) + b"\\0\\1")
one = piece(b"float32") + bytes([2]) + varint(7) + varint(2) + piece(1000 * level)
refused(ARCHITECTURE + varint(2) + one + weight(b"float32", (2,), b""), "which none is")
# No row is made for weights that there are none of.
for shape in ((0, 1 << 40), (1 << 40, 0)):
    for kind in range(1, 4):
        try:
            _tensor.decode(bytes([kind, 5, 2, 0, 0, 0, 0, 0]), np.dtype("float32"), shape)
        except ValueError as error:
            assert "which none is" in str(error), error
        else:
            raise AssertionError(shape)
"""

CALLS = """
limit(1 << 29)
inputs = keras.Input((4,))
model = keras.Model(inputs, keras.layers.Dense(2, name="d")(inputs))
text = _architecture._inflate(_architecture.serialize(model)[1:])
description = json.loads(text)
entry = {
    "module": "keras.src.ops.numpy",
    "class_name": "BroadcastTo",
    "config": {"shape": [10**10], "name": "op"},
    "registered_name": "BroadcastTo",
    "name": "op",
    "inbound_nodes": [{"args": [[1.0]], "kwargs": {}}],
}
description["config"]["layers"].insert(1, entry)
packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=_architecture.COMMON)
packed = packer.compress(json.dumps(description).encode()) + packer.flush()
refused(piece(b"\\0" + packed) + varint(0), "calls 'op' on constants alone")
"""

ALTERED = """
limit(1 << 29)
generator = np.random.default_rng(0)
start, refusals, models = len(ARCHITECTURE), 0, 0
for number in range(150):
    body = bytearray(OWN)
    # Headers and codes of weights; now and then the architecture.
    first = 0 if number % 10 == 0 else start
    for _ in range(generator.integers(1, 4)):
        place = int(generator.integers(first, len(body)))
        body[place] = int(generator.integers(256))
    try:
        model = unpacked(bytes(body))
    except ValueError as error:
        refusals += "cannot be unpacked" in str(error)
    else:
        models += [w.shape for w in model.get_weights()] == [(7, 2), (2,)]
assert refusals + models == 150 and refusals > 20, (refusals, models)
"""


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LARGE, id="large", marks=pytest.mark.once),
        pytest.param(ALTERED, id="altered"),
        pytest.param(
            CALLS, id="calls", marks=pytest.mark.skipif(LEGACY, reason="of Keras 3's files")
        ),
    ],
)
def test_hostile_files_are_refused_in_half_a_gigabyte(tmp_path, script):
    done = subprocess.run(
        [sys.executable, "-c", START + script, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
