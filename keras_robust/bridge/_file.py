"""A `.keras` file of either Keras, loaded as a model of the Keras that runs."""

import json
import pathlib
import shutil
import tempfile
import zipfile

from keras_robust._keras import LEGACY
from keras_robust.bridge._kerases import keras_3, tf_keras
from keras_robust.bridge._limits import at_most, check_weights
from keras_robust.bridge._rebuild import from_keras3, to_keras3
from keras_robust.bridge._trusted import check_trusted, forget_training
from keras_robust.layers import introduce

_MOST_BYTES, _MOST_MEMBERS = 1 << 33, 1 << 10
_SLACK = 1 << 26  # Bytes of variables that are in no file.


def load(path):
    """The model in a `.keras` file, written by Keras 3 or tf_keras, for the Keras that runs.

    It is not compiled. Code in a file is never run, and no layer is made that opens files or calls
    more than pure functions of TensorFlow.

    Args:
        path: the file.

    Returns:
        A model, rebuilt by `from_keras3` or `to_keras3` where the other Keras wrote it.

    Raises:
        ValueError: missing, damaged, of another kind, or holding what cannot be loaded or
            rebuilt; names the path.
    """
    path = pathlib.Path(path)
    legacy, architecture = _read(path)
    package = tf_keras() if legacy else keras_3()
    introduce(package)
    try:
        forget_training(architecture)
        check_trusted(architecture, package)
        with tempfile.TemporaryDirectory() as folder:
            # Of what was looked at: Keras would read the file again, and by its name.
            checked = pathlib.Path(folder) / "model.keras"
            with at_most(2 * _copied(path, checked, architecture) + _SLACK):
                model = package.saving.load_model(str(checked), compile=False, safe_mode=True)
        if not isinstance(model, package.Model):
            raise ValueError(f"it is a {type(model).__name__}, no model")
    except Exception as error:  # Zip, JSON, HDF5 and Keras each raise their own kinds.
        raise ValueError(
            f"{str(path)!r} was written by {'tf_keras' if legacy else 'Keras 3'}, but cannot be "
            f"loaded: {str(error).strip()[:500] or type(error).__name__}. Define and register its "
            "own layers before loading it, or save it again."
        ) from error
    if legacy == LEGACY:
        return model
    try:
        return to_keras3(model) if legacy else from_keras3(model)
    except Exception as error:
        raise ValueError(f"{str(path)!r} cannot be converted: {error}") from error


def _copied(path, checked, architecture) -> int:
    """Writes a file with this architecture and the rest of `path`; the size of its weights."""
    weights = 0
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(checked, "w") as target:
        target.writestr("config.json", json.dumps(architecture))
        for name in dict.fromkeys(source.namelist()):
            if name == "config.json":
                continue
            place = checked.with_name("part")
            with source.open(name) as member, open(place, "wb") as file:
                shutil.copyfileobj(member, file)
            if name.endswith(".h5"):
                check_weights(place)
            weights += place.stat().st_size
            target.write(place, name)
    return weights


def _read(path: pathlib.Path):
    """Whether tf_keras wrote the file, else Keras 3; and the architecture in it."""
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "missing"
        raise ValueError(f"{str(path)!r} is {kind}, a .keras file was expected.")
    if path.suffix in (".h5", ".hdf5"):
        raise ValueError(
            f"{str(path)!r} is a file of the old HDF5 format. Load it with the Keras that wrote it "
            'and save it again with model.save("model.keras").'
        )
    foreign = f"{str(path)!r} is no .keras file"
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{foreign}, or a truncated one. Save the model again as .keras.")
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = [member.file_size for member in archive.infolist()]
            if sum(sizes) > _MOST_BYTES or len(sizes) > _MOST_MEMBERS:
                raise ValueError(f"it announces {len(sizes):,} parts of {sum(sizes):,} bytes")
            metadata = json.loads(archive.read("metadata.json"))
            architecture = json.loads(archive.read("config.json"))
            version = str(metadata["keras_version"])
    except KeyError as error:
        raise ValueError(f"{foreign}: it lacks {error}. Save the model again as .keras.") from error
    except Exception as error:  # Zip and JSON raise what they like of a damaged file.
        raise ValueError(f"{foreign} that can be read: {error}. Save the model again.") from error
    return not version.startswith("3."), architecture
