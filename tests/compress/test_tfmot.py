import os
import subprocess
import sys

import pytest

from keras_robust._keras import LEGACY
from keras_robust.compress import Cluster, Quantize, load

IMPORT = """
import os
before = dict(os.environ)
from keras_robust.compress._tfmot import tfmot
assert tfmot().__name__ == "tensorflow_model_optimization"
assert dict(os.environ) == before, "changed"
print("same", os.environ.get("TF_USE_LEGACY_KERAS"))
"""


@pytest.mark.skipif(not LEGACY, reason="compress needs tf_keras")
def test_importing_tfmot_leaves_the_environment():
    value = "true"  # TF-MOT would make it "1".
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": value, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"same {value}"


@pytest.mark.skipif(not LEGACY, reason="compress needs tf_keras")
def test_missing_tfmot_names_the_extra(monkeypatch):
    from keras_robust.compress._tfmot import tfmot

    class Refuse:
        def find_spec(self, name, path=None, target=None):
            if name == "tensorflow_model_optimization":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.delitem(sys.modules, "tensorflow_model_optimization", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Refuse(), *sys.meta_path])
    with pytest.raises(ImportError, match=r'pip install "keras-robust\[compress\]"'):
        tfmot()


@pytest.mark.skipif(LEGACY, reason="what Keras 3 is told")
@pytest.mark.parametrize(
    "make",
    [lambda: Cluster(4), lambda: Quantize(), lambda: load("m.h5")],
)
def test_keras_3_is_refused_with_the_fix(make):
    with pytest.raises(ImportError, match="Set TF_USE_LEGACY_KERAS=1"):
        make()
