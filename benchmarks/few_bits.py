"""Binary weights in the bits that LiteRT can run: int8, int4 and int2 files beside the float one.

python -m venv .venv-bits && .venv-bits/bin/pip install ai-edge-quantizer==0.10.0
python benchmarks/few_bits.py --python .venv-bits/bin/python
python benchmarks/few_bits.py --quick    # what keras_robust itself writes

Two nets of random binary weights are frozen and written; ai-edge-quantizer, in an interpreter of
its own, makes the files of fewer bits out of the float ones. "error" is the largest difference of
a logit on 300 images, in units of the largest. One image at a time, on one thread, the files in
turn. The table is in docs/binary.md.
"""

import json
import pathlib
import subprocess
import tempfile

import _common

NAME = "few_bits"
_IMAGES = 20  # A round.
WORKER = pathlib.Path(__file__).with_name("_few_bits_worker.py")


def main(arguments=None) -> dict:
    parser = _common.parser(__doc__.partition("\n")[0], NAME)
    parser.add_argument("--python", help="an interpreter that has ai-edge-quantizer")
    options = parser.parse_args(arguments)
    _common.pin(options.core)
    rounds = 2 if options.quick else 15
    result = {"benchmark": NAME, "environment": _common.environment(), "rows": []}
    result["settings"] = {"quick": options.quick, "seed": options.seed, "rounds": rounds}
    for name, make in {"dense": dense, "convolutional": convolutional}.items():
        with tempfile.TemporaryDirectory() as folder:
            rows = measured(make, pathlib.Path(folder), options, rounds)
        result["rows"] += [{"network": name, **row} for row in rows]
    if options.output is not None:
        _common.save(options.output, result)
    print(render(result))
    return result


def measured(make, folder, options, rounds) -> list[dict]:
    """A row for each file: bytes, error, and microseconds in either interpreter."""
    import numpy as np

    import keras_robust as kr
    from keras_robust._keras import keras
    from keras_robust.export import TFLiteModel

    keras.utils.set_random_seed(options.seed)
    model = make(keras)
    generator = np.random.default_rng(options.seed)
    x = generator.uniform(size=(300, *model.input_shape[1:])).astype("float32")
    scatter(model, generator)
    frozen = kr.compress.freeze_binary(kr.compress.binarize(model), batch_norm=batches(x))
    logits = frozen.predict(x, verbose=0)
    np.save(folder / "x.npy", x)
    for name, how in {
        "float32": {},
        "int8": {"representative": x, "tolerance": 1.0},
        "int8 weights, dynamic": {"mode": "dynamic"},
    }.items():
        kr.export.tflite(frozen, folder / f"{name}.tflite", check=x, **how)
    packed = kr.compress.pack(frozen, folder / "packed.krz")
    theirs = {}
    if options.python:
        command = [options.python, str(WORKER), str(folder), str(rounds * _IMAGES)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        theirs = json.loads(done.stdout.splitlines()[-1])
    rows, files = [], sorted(folder.glob("*.tflite"), key=lambda path: -path.stat().st_size)
    models = {path.stem: TFLiteModel(path, threads=1, batch_size=1) for path in files}
    runs = {name: runner(file, x[:1]) for name, file in models.items()}
    found = _common.alternate(runs, rounds, _IMAGES, options.seed)
    for path in files:
        given = TFLiteModel(path, threads=1)(x)
        error = float(np.abs(given - logits).max() / np.abs(logits).max())
        rows.append(
            {
                "file": path.stem,
                "bytes": path.stat().st_size,
                "error": error if np.isfinite(error) else None,
                "us": 1000 * _common.spread([wall for _, wall in found[path.stem]])["median"],
                "litert_us": theirs.get(path.stem),
            }
        )
    return [*rows, {"file": "packed", "bytes": packed, "error": 0.0, "us": None, "litert_us": None}]


def runner(file, image):
    def run(steps):
        for _ in range(steps):
            file(image)

    return run


def dense(keras):
    layers = keras.layers
    model = keras.Sequential([keras.Input((784,))])
    for _ in range(3):
        for layer in (layers.Dense(512), layers.BatchNormalization(), layers.ReLU()):
            model.add(layer)
    model.add(layers.Dense(10))
    return model


def convolutional(keras):
    layers = keras.layers
    model = keras.Sequential([keras.Input((28, 28, 1))])
    for layer in (
        layers.Conv2D(32, 3, 2, padding="same"),
        layers.DepthwiseConv2D(3),
        layers.Conv2D(64, 3, 2, padding="same"),
    ):
        for part in (layer, layers.BatchNormalization(), layers.ReLU()):
            model.add(part)
    model.add(layers.Flatten())
    model.add(layers.Dense(10))
    return model


def scatter(model, generator) -> None:
    """Factors of BatchNormalization as after training: folded, each channel has its own."""
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            gamma, beta, mean, variance = layer.get_weights()
            gamma = generator.uniform(0.5, 1.5, gamma.shape)
            layer.set_weights([gamma, generator.normal(0, 0.2, beta.shape), mean, variance])


def batches(x):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(x).batch(100)


def render(result: dict) -> str:
    """The rows as a table in Markdown."""
    lines = [
        "| network | file | bytes | error | TensorFlow us | LiteRT us |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in result["rows"]:
        error = "not finite" if row["error"] is None else f"{row['error']:.4f}"
        us = ["" if row[key] is None else f"{row[key]:.0f}" for key in ("us", "litert_us")]
        lines.append(
            f"| {row['network']} | {row['file']} | {row['bytes']:,} | {error} | {us[0]} | {us[1]} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
