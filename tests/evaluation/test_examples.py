import base64
import io

import numpy as np
import pytest
from PIL import Image

from keras_robust.attacks import FGSM
from keras_robust.evaluation import evaluate

pytestmark = pytest.mark.once


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def run(artifacts, x, y, attack, **settings):
    report = evaluate(artifacts, x, y, [attack], progress=False, latency_runs=1, **settings)
    return report.to_dict()["examples"]


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_pictures_are_those_that_were_counted(rng, linear, channels):
    shape = (8, 8) if channels is None else (8, 8, channels)
    x = rng.uniform(0.2, 0.8, size=(9, *shape)).astype("float32")
    model = linear(int(np.prod(shape)))
    y = model(x).numpy().argmax(-1)
    attack = FGSM(0.1)
    x_adv = attack(model, x, y).numpy()
    labels = model(x_adv).numpy().argmax(-1)
    examples = run({"m": model}, x, y, attack, eps_sweep=())
    assert len(examples["images"]) == 4 and examples["eps"] == 0.1
    for image in examples["images"]:
        row = image["index"]
        (shown,) = image["shown"]
        assert shown["prediction"] == labels[row] and shown["clean_prediction"] == y[row]
        assert shown["largest_change"] == pytest.approx(0.1, abs=1e-6)
        wanted = (8, 8, 3) if channels == 3 else (8, 8)
        assert pixels(image["clean"]).shape == wanted
        grid = np.abs(pixels(shown["adversarial"]) / 255 - x_adv[row].reshape(wanted))
        assert grid.max() <= 0.5 / 255 + 1e-6
        # Minus and plus eps are black and white, no change would be grey.
        assert set(np.unique(pixels(shown["perturbation"]))) <= {0, 128, 255}


def test_images_that_tell_artifacts_apart_come_first(rng):
    import tensorflow as tf

    def narrow(x):
        mean = tf.reduce_mean(x, [1, 2, 3])[:, None] - 0.5
        return tf.concat([mean, -mean], -1)

    def steady(x):  # sees nothing but the first pixel, scaled down: right, whatever the attack
        return tf.concat([2 * tf.ones_like(x[:, 0, 0]), 0.001 * x[:, 0, 0]], -1)

    x = np.full((20, 4, 4, 1), 0.9, np.float32)
    x[[7, 13]] = 0.55  # the only ones that an eps of 0.1 breaks for one model
    examples = run({"narrow": narrow, "steady": steady}, x, np.zeros(20, int), FGSM(0.1))
    rows = [image["index"] for image in examples["images"]]
    assert {7, 13} < set(rows)
    first = next(image for image in examples["images"] if image["index"] == 7)
    assert [shown["prediction"] for shown in first["shown"]] == [1, 0]


def test_vectors_have_no_pictures(inside):
    model, x, y, _ = inside(count=4)
    assert run({"m": model}, x, y, FGSM(0.1)) is None
