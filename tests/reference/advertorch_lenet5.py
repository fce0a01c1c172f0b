"""advertorch's LeNet5 for MNIST, trained against PGD at linf 0.3, read without torch.

The weights lie in the sdist of advertorch 0.2.3 on PyPI (LGPL), fetched at test time and not
kept here, in the file format that torch wrote before 1.6: pickles, then the bare arrays.
"""

import collections
import io
import pathlib
import pickle
import subprocess
import sys
import tarfile

import numpy as np

VERSION = "0.2.3"
MEMBER = f"advertorch-{VERSION}/advertorch_examples/trained_models/mnist_lenet5_advtrained.pt"
# How torch names what the file is made of.
_DTYPES = {"FloatStorage": np.float32}


def fetch(folder: pathlib.Path) -> pathlib.Path:
    """The sdist, downloaded into `folder` by pip; raises where PyPI is out of reach."""
    command = [sys.executable, "-m", "pip", "download", f"advertorch=={VERSION}"]
    command += ["--no-deps", "--no-binary", ":all:", "--quiet", "--dest", str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder / f"advertorch-{VERSION}.tar.gz"


def net(sdist: pathlib.Path) -> tuple[list[dict], dict[str, np.ndarray]]:
    """The net as layers and arrays, see `reference_nets`."""
    with tarfile.open(sdist) as archive:
        state = _read(archive.extractfile(MEMBER).read())
    arrays = {}
    for name in ("conv1", "conv2"):
        arrays[f"{name}/kernel"] = state[f"{name}.weight"].transpose(2, 3, 1, 0)
    # Its flatten is channels first, 64 of 7 x 7; ours channels last.
    first = state["linear1.weight"].reshape(200, 64, 7, 7).transpose(2, 3, 1, 0)
    arrays["linear1/kernel"] = first.reshape(-1, 200)
    arrays["linear2/kernel"] = state["linear2.weight"].T
    for name in ("conv1", "conv2", "linear1", "linear2"):
        arrays[f"{name}/bias"] = state[f"{name}.bias"]
    layers = []
    for name in ("conv1", "conv2"):
        layers += [
            {"kind": "conv", "name": name, "stride": 1, "padding": "same"},
            {"kind": "relu"},
            {"kind": "pool", "size": 2},
        ]
    layers += [
        {"kind": "flatten"},
        {"kind": "dense", "name": "linear1"},
        {"kind": "relu"},
        {"kind": "dense", "name": "linear2"},
    ]
    return layers, {key: np.ascontiguousarray(value) for key, value in arrays.items()}


class _Storage(collections.namedtuple("_Storage", "dtype key")):
    """A flat array that comes later in the file."""


class _Tensor(collections.namedtuple("_Tensor", "storage offset shape strides")):
    """A view on a storage."""


class _Unpickler(pickle.Unpickler):
    """Reads a dict of tensors and nothing else."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *rest: _Tensor(
                storage, offset, shape, strides
            )
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"the file holds {module}.{name}, which is no weight")

    def persistent_load(self, identity):
        return _Storage(np.dtype(identity[1]), identity[2])


def _read(content: bytes) -> dict[str, np.ndarray]:
    """Name -> array of a state dict."""
    file = io.BytesIO(content)
    for _ in range(3):  # Magic number, protocol, machine.
        _Unpickler(file).load()
    state = _Unpickler(file).load()
    dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in state.values()}
    flat = {}
    for key in _Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little")
        values = file.read(count * dtypes[key].itemsize)
        flat[key] = np.frombuffer(values, dtypes[key])
    return {name: _view(flat[tensor.storage.key], tensor) for name, tensor in state.items()}


def _view(flat, tensor) -> np.ndarray:
    size = flat.itemsize
    strides = [size * stride for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides)
