"""Rules that hold for the whole package."""

import ast
import configparser
import doctest
import importlib
import os
import pathlib
import pkgutil
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import LEGACY, keras

SOURCE = pathlib.Path(kr.__file__).parent
# Imported inside the functions that need them.
LAZY = {
    "tensorflow_model_optimization",
    "tensorflow_datasets",
    "matplotlib",
    "PIL",
    "scipy",
    "sklearn",
}
MODULES = sorted(
    name
    for _, name, _ in pkgutil.walk_packages(kr.__path__, "keras_robust.")
    if not name.endswith("__main__")
)


def imports_of(path, top_level_only):
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0], node.lineno


def test_only_two_files_know_which_keras_runs():
    allowed = {SOURCE / "_keras.py", SOURCE / "bridge" / "_kerases.py"}
    found = [
        f"{path.name}:{line}"
        for path in SOURCE.rglob("*.py")
        if path not in allowed
        for name, line in imports_of(path, top_level_only=False)
        if name in ("keras", "tf_keras")
    ]
    assert not found, f"say `from keras_robust._keras import keras`: {found}"
    text = [path for path in SOURCE.rglob("*.py") if "tf.keras" in path.read_text()]
    assert not text, f"`tf.keras` is whichever Keras was imported first: {text}"


def test_heavy_and_optional_imports_stay_inside_functions():
    found = [
        f"{path.name}:{line} {name}"
        for path in SOURCE.rglob("*.py")
        for name, line in imports_of(path, top_level_only=True)
        if name in LAZY
    ]
    assert not found, f"move these inside the function that uses them: {found}"


def test_every_import_is_declared():
    declared = configparser.ConfigParser()
    declared.read(SOURCE.parent / "setup.cfg")
    lines = declared["options"]["install_requires"], *declared["options.extras_require"].values()
    projects = set(re.findall(r"^([A-Za-z0-9_-]+)", "\n".join(lines), re.MULTILINE))
    modules = {name.lower().replace("-", "_") for name in projects}
    # Known under another name, and what tensorflow brings along.
    modules |= {"PIL", "ai_edge_litert", "keras_robust", "sklearn"} | sys.stdlib_module_names
    found = {
        f"{path.name}:{line} {name}"
        for path in SOURCE.rglob("*.py")
        for name, line in imports_of(path, top_level_only=False)
        if name not in modules
    }
    assert not found, f"add these to setup.cfg: {sorted(found)}"


@pytest.mark.parametrize(
    ("folder", "not_allowed"),
    [
        ("losses", {"attacks", "training", "compress", "evaluation", "export", "cli", "zoo"}),
        ("attacks", {"training", "compress", "evaluation", "export", "cli", "zoo"}),
        ("layers", {"attacks", "training", "compress", "evaluation", "export", "cli", "zoo"}),
        ("training", {"compress", "evaluation", "export", "cli", "zoo"}),
        ("compress", {"evaluation", "export", "cli"}),
        ("analysis", {"transfer", "evaluation", "export", "cli"}),
        ("transfer", {"evaluation", "export", "cli", "zoo"}),
        ("export", {"evaluation", "cli"}),
        ("evaluation", {"cli"}),
    ],
)
def test_dependencies_point_one_way(folder, not_allowed):
    found = []
    for path in (SOURCE / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras_robust"):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                found += [
                    f"{path.name}:{node.lineno}"
                    for name in names
                    if len(parts := name.split(".")) > 1 and parts[1] in not_allowed
                ]
    assert not found


def test_files_fit_in_a_head():
    long = {
        str(p.relative_to(SOURCE)): n
        for p in SOURCE.rglob("*.py")
        if (n := p.read_text().count("\n")) > 400
    }
    assert not long


def test_public_names_exist_and_say_what_they_are():
    for name in kr.__all__:
        assert name == "__version__" or getattr(kr, name).__doc__, name
    assert set(kr.__all__) <= set(dir(kr))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = kr.nothing


def test_importing_leaves_the_environment_alone():
    code = (
        "import os; before = dict(os.environ); import keras_robust as kr; kr.attacks, kr.training; "
        "kr.compress, kr.export, kr.data, kr.evaluate; assert callable(kr.evaluate); "
        "assert callable(kr.bridge.load); "
        "changed = {k for k in {*before, *os.environ} if before.get(k) != os.environ.get(k)}; "
        "assert 'TF_USE_LEGACY_KERAS' not in changed, changed"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_without_a_choice_keras_3_runs_and_compress_says_how():
    code = (
        "import keras_robust as kr\n"
        "from keras_robust._keras import keras\n"
        "assert keras.__name__ == 'keras'\n"
        "try: kr.compress.Recipe([kr.compress.Cluster(16)])\n"
        "except ImportError as error: assert 'Set TF_USE_LEGACY_KERAS=1' in str(error)\n"
        "else: raise SystemExit('no error')\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name, tmp_path, monkeypatch):
    if name.rpartition(".")[2] in ("_cluster", "_quantize", "_recipe") and not LEGACY:
        pytest.skip("TF-MOT needs tf_keras")
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    names = {"np": np, "tf": tf, "keras": keras, "kr": kr}
    result = doctest.testmod(module, extraglobs=names, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
