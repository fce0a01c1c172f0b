"""Data, a model and a way to call the command for its tests."""

import numpy as np
import pytest

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.cli import main


@pytest.fixture
def archive(blobs, tmp_path):
    """Blobs as a data set on disk."""
    x, y = blobs(240)
    path = tmp_path / "blobs.npz"
    names = ["top left", "top right", "bottom left"]
    parts = {"x_train": x[:192], "y_train": y[:192], "x_test": x[192:], "y_test": y[192:]}
    np.savez(path, **parts, class_names=names)
    return path


@pytest.fixture
def saved(cnn, tmp_path):
    path = tmp_path / "model.keras"
    cnn().save(path)
    return path


@pytest.fixture
def small(tmp_path):
    """One dense layer: soon attacked, and soon converted."""
    model = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(seed=0)))
    model.save(tmp_path / "small.keras")
    return tmp_path / "small.keras"


@pytest.fixture
def call(capsys):
    """Runs one command in this process: `call(*arguments)` -> exit code, stdout and stderr."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def spied(monkeypatch):
    """Stops a command where its work starts: `spied(owner, name)` -> (args, kwargs) of calls."""

    def spy(owner, name):
        seen = []

        def stop(*args, **kwargs):
            seen.append((args, kwargs))
            raise ValueError("seen enough")

        monkeypatch.setattr(owner, name, stop)
        return seen

    return spy


@pytest.fixture
def seeds(monkeypatch):
    """The seeds that data sets are loaded with from now on."""
    seen, load = [], kr.data.load

    def spy(*args, **kwargs):
        seen.append(kwargs.get("seed"))
        return load(*args, **kwargs)

    monkeypatch.setattr(kr.data, "load", spy)
    return seen
