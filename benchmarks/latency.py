"""Latency on the LiteRT interpreter: neuron-pruned, int8 and sparse files beside the dense one.

python benchmarks/latency.py            # a few minutes
python benchmarks/latency.py --quick    # does it run?

Weights are random: how long a file takes hardly depends on their values, only zeros matter to the
sparse ones. Images go one at a time, on one thread, and the files of a network take turns.
"""

import pathlib
import tempfile

import _common

NAME = "latency"
SPARSITY, AMOUNT = 0.9, 0.5
SHAPES = {"lenet5": (28, 28, 1), "small_cnn": (28, 28, 1)}
NETWORKS = ("lenet5", "small_cnn", "mobilenet", "resnet18")


def main(arguments=None) -> dict:
    options = _common.parser(__doc__.partition("\n")[0], NAME).parse_args(arguments)
    _common.pin(options.core)
    networks = NETWORKS[:1] if options.quick else NETWORKS
    rounds = 2 if options.quick else 15
    settings = {
        "quick": options.quick,
        "sparsity": SPARSITY,
        "amount": AMOUNT,
        "rounds": rounds,
        "threads": 1,
    }
    result = {"benchmark": NAME, "environment": _common.environment(), "settings": settings}
    result["rows"] = [
        row for name in networks for row in measured(name, rounds, options.seed, options.quick)
    ]
    path = options.output
    if path is None and not options.quick:
        path = _common.RESULTS / f"{NAME}.json"
    if path is not None:
        _common.save(path, result)
    print(render(result))
    return result


def measured(network: str, rounds: int, seed: int, quick: bool) -> list[dict]:
    """A row for each file of a network: bytes, parameters, time of an image, ratio to dense."""
    import numpy as np

    from keras_robust.export import TFLiteModel

    generator = np.random.default_rng(seed)
    shape = SHAPES.get(network, (32, 32, 3))
    x = generator.uniform(size=(32, *shape)).astype("float32")
    with tempfile.TemporaryDirectory() as folder:
        paths, parameters, zeros = write(network, shape, x, pathlib.Path(folder))
        files = {n: TFLiteModel(path, threads=1, batch_size=1) for n, path in paths.items()}
        sizes = {name: path.stat().st_size for name, path in paths.items()}
        steps = 5 if quick else steps_for(files["dense"], x)
        variants = {name: runner(file, x) for name, file in files.items()}
        found = _common.alternate(variants, rounds, steps, seed)
    return [
        {
            "network": network,
            "file": name,
            "parameters": parameters[name],
            "sparsity": round(zeros[name], 3),
            "bytes": sizes[name],
            "cpu_ms": _common.spread([cpu for cpu, _ in found[name]]),
            "wall_ms": _common.spread([wall for _, wall in found[name]]),
            "ratio": _common.ratios(found, name, "dense"),
        }
        for name in files
    ]


def write(network, shape, x, folder):
    """Writes the files; returns their paths, parameters and shares of zeros, by name."""
    import keras_robust as kr

    dense = kr.zoo.build(network, input_shape=shape)
    small = kr.compress.PruneNeurons(AMOUNT, score="l2").apply(dense)
    sparse = magnitude_pruned(dense)
    models = {
        "dense": dense,
        "neurons pruned": small,
        "int8": dense,
        "int8, neurons pruned": small,
        "zeros, stored densely": sparse,
        "zeros, stored sparsely": sparse,
    }
    paths = {}
    for number, (name, model) in enumerate(models.items()):
        paths[name] = folder / f"{number}.tflite"
        if name.endswith("sparsely"):
            paths[name].write_bytes(stored_sparsely(model))
        elif name.startswith("int8"):
            kr.export.tflite(model, paths[name], representative=x, tolerance=1.0)
        else:
            kr.export.tflite(model, paths[name], check=x)
    parameters = {name: model.count_params() for name, model in models.items()}
    return paths, parameters, {name: share_of_zeros(model) for name, model in models.items()}


def magnitude_pruned(model):
    """A copy in which the smallest weights of each kernel are zero, depthwise ones apart."""
    import numpy as np

    from keras_robust._keras import keras

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        if type(layer).__name__ in ("Conv2D", "Dense"):
            kernel, *rest = layer.get_weights()
            limit = np.quantile(np.abs(kernel), SPARSITY)
            layer.set_weights([np.where(np.abs(kernel) <= limit, 0, kernel), *rest])
    return copy


def share_of_zeros(model) -> float:
    import numpy as np

    kernels = [w for w in model.get_weights() if w.ndim > 1]
    return sum(int(np.sum(w == 0)) for w in kernels) / sum(w.size for w in kernels)


def stored_sparsely(model) -> bytes:
    """By the converter's own option, which stores kernels with many zeros as such."""
    import tensorflow as tf

    from keras_robust.export._source import Traced

    traced = Traced(model, model.inputs[0].shape[1:], lambda logits: {"logits": logits})
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.concrete], traced)
    converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    return converter.convert()


def steps_for(file, x) -> int:
    """So many images that a round takes about a fifth of a second."""
    return max(10, min(2000, int(200 / file.latency_ms(x, runs=20))))


def runner(file, x):
    def run(steps):
        for step in range(steps):
            file(x[step % len(x)][None])

    return run


def render(result: dict) -> str:
    """The rows as a table in Markdown."""
    lines = [
        "| network | file | parameters | bytes | CPU ms an image | of dense |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in result["rows"]:
        time, ratio = row["cpu_ms"], row["ratio"]
        lines.append(
            f"| {row['network']} | {row['file']} | {row['parameters']:,} | {row['bytes']:,} "
            f"| {time['median']:.3f} | {ratio['median']:.2f} "
            f"({ratio['low']:.2f}-{ratio['high']:.2f}) |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
