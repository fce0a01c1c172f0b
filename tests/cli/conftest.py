"""Data, a model and a way to call the command for its tests."""

import numpy as np
import pytest

from keras_robust.cli import main


@pytest.fixture
def archive(blobs, tmp_path):
    """Blobs as a data set on disk."""
    x, y = blobs(240)
    path = tmp_path / "blobs.npz"
    np.savez(path, x_train=x[:192], y_train=y[:192], x_test=x[192:], y_test=y[192:])
    return path


@pytest.fixture
def saved(cnn, tmp_path):
    path = tmp_path / "model.keras"
    cnn().save(path)
    return path


@pytest.fixture
def call(capsys):
    """Runs one command in this process: `call(*arguments)` -> exit code, stdout and stderr."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run
