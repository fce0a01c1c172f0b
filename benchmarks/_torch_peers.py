"""Peers that run on torch, in an interpreter of their own, on the same weights and core."""

import atexit
import json
import os
import pathlib
import subprocess
import tempfile

import numpy as np

NAMES = {"torchattacks": "torchattacks", "AutoAttack's authors": "autoattack"}


class TorchPeers:
    """The attacks of the torch peers on one model; `names` are those that can be imported.

    Args:
        python: an interpreter that has torch.
        path: folders for its PYTHONPATH, such as a checkout of the AutoAttack reference.
    """

    def __init__(self, python, path=()):
        here = pathlib.Path(__file__).parent
        folders = ":".join(str(pathlib.Path(folder).resolve()) for folder in (here, *path))
        environment = {**os.environ, "PYTHONPATH": folders}
        self.names, self.missing, self.versions = [], {}, {}
        for name, module in NAMES.items():
            done = subprocess.run(
                [str(python), "-c", f"import torch, {module}; print(torch.__version__)"],
                capture_output=True,
                text=True,
                env=environment,
            )
            if done.returncode:
                self.missing[name] = (done.stderr.strip().splitlines() or ["no answer"])[-1]
            else:
                self.names.append(name)
                self.versions["torch"] = done.stdout.strip()
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [str(python), str(here / "_torch_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        atexit.register(self.close)

    def load(self, model) -> None:
        """Gives the worker the weights of a sequential Keras model to attack."""
        layers, arrays = _net(model)
        self._classes = model.output_shape[-1]
        path = self._path("model")
        np.savez(path, layers=json.dumps(layers), **arrays)
        self._ask({"model": path})
        self.check(model)

    def check(self, model) -> None:
        """Raises unless both sides compute the same logits."""
        rows = np.random.default_rng(0).random((4, *model.input_shape[1:]), np.float32)
        theirs = self._ask({"logits": self._save(rows, np.zeros(4))})
        ours = model(rows, training=False).numpy()
        if not np.allclose(theirs, ours, atol=1e-4):
            raise RuntimeError(f"torch computes other logits: {theirs} and {ours.tolist()}")

    def make(self, peer, contest):
        """A function `(x, y) -> (x_adv, (cpu, wall))`, or None without the attack."""
        wanted = {"peer": peer, "kind": contest.kind, "norm": contest.norm, "eps": contest.eps}
        made = self._ask({"attack": {**wanted, "budget": contest.budget, "classes": self._classes}})
        if made is None:
            return None

        def run(x, y):
            target = self._path("out")
            spent = self._ask({"run": made["number"], "file": self._save(x, y), "out": target})
            with np.load(target) as file:
                return file["x_adv"], (spent["cpu"], spent["wall"])

        return run

    def close(self) -> None:
        """Ends the worker."""
        if self._process.poll() is None:
            self._process.stdin.close()
            self._process.wait(timeout=10)

    def _save(self, x, y) -> str:
        path = self._path("in")
        np.savez(path, x=x, y=y)
        return path

    def _path(self, name) -> str:
        return f"{self._folder.name}/{name}.npz"

    def _ask(self, request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the torch worker ended")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["answer"]


def _net(model):
    """Layers and arrays of a chain of the layers that the zoo's small networks are made of."""
    layers, arrays = [], {}
    for layer in model.layers:
        kind, settings = type(layer).__name__, layer.get_config()
        if kind == "InputLayer":
            continue
        if kind == "Rescaling":
            layers.append({"kind": "affine", "scale": layer.scale, "offset": layer.offset})
        elif kind in ("ReLU", "Flatten"):
            layers.append({"kind": kind.lower()})
        elif kind in ("Dense", "Conv2D") and settings["activation"] == "linear":
            arrays[f"{layer.name}/kernel"], arrays[f"{layer.name}/bias"] = layer.get_weights()
            made = {"kind": {"Dense": "dense", "Conv2D": "conv"}[kind], "name": layer.name}
            if kind == "Conv2D":
                made |= {"stride": settings["strides"][0], "padding": settings["padding"]}
            layers.append(made)
        else:
            raise ValueError(f"layer {layer.name!r} ({kind}) has no twin in torch")
    return layers, arrays
