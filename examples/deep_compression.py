"""Deep Compression of LeNet-300-100 and LeNet-5 on MNIST, as files that unpack.

TF_USE_LEGACY_KERAS=1 python examples/deep_compression.py --quick   # a minute, little data
TF_USE_LEGACY_KERAS=1 python examples/deep_compression.py           # all of MNIST

Each stage's model is packed into a file of --output; those there are not made again. What was
measured is in docs/packed.md. The loops below train masks and centroids in plain TensorFlow, biases
among them; examples/robust_compression.py does it with `kr.compress.Recipe`.
"""

import argparse
import os
import pathlib

import numpy as np
import tensorflow as tf
from _results import folder_of

import keras_robust as kr
from keras_robust._keras import keras

DATA = pathlib.Path(os.environ.get("KERAS_ROBUST_DATA", "../shared/data"))
BATCH = 128


class Plan:
    """How one net is compressed: shares of weights kept and bits an index, layer by layer."""

    def __init__(self, build, kept, bits, epochs, rungs, limit, paper):
        self.build, self.kept, self.bits, self.epochs = build, kept, bits, epochs
        self.rungs, self.limit, self.paper = rungs, limit, paper


PLANS = {
    "LeNet-300-100": Plan(
        kr.zoo.lenet_300_100,
        kept={"dense1": 0.08, "dense2": 0.09, "logits": 0.26},
        bits={"dense1": 6, "dense2": 6, "logits": 6},
        epochs={"reference": 14, "pruned": 10, "clustered": 3, "rung": 6},
        # Shares of the weights that the paper keeps, and bits an index: past the paper.
        rungs=[(0.6, 4), (0.4, 4), (0.28, 3)],
        limit=1.64,
        paper={"error": 1.58, "P": 12, "P+Q": 32, "P+Q+H": 40},
    ),
    "LeNet-5": Plan(
        kr.zoo.lenet5,
        kept={"conv1": 0.66, "conv2": 0.12, "dense1": 0.08, "logits": 0.19},
        # The paper has 8 for the convolutions: as many centroids as conv1 keeps weights.
        bits={"conv1": 7, "conv2": 7, "dense1": 5, "logits": 5},
        epochs={"reference": 5, "pruned": 4, "clustered": 1, "rung": 3},
        rungs=[(0.5, 4), (0.3, 4), (0.2, 4)],
        limit=0.80,
        paper={"error": 0.74, "P": 12, "P+Q": 33, "P+Q+H": 39},
    ),
}


def main(arguments=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="little data, short training")
    parser.add_argument("--net", choices=list(PLANS), help="only this one")
    parser.add_argument("--output", type=pathlib.Path, help="folder of results")
    options = parser.parse_args(arguments)
    options.output = folder_of(options, "deep_compression", "net")
    data = mnist(6000 if options.quick else None)
    return {
        name: compress(name, PLANS[name], data, options)
        for name in ([options.net] if options.net else PLANS)
    }


def compress(name, plan, data, options) -> dict:
    """Trains, prunes, clusters and packs one net; prints the tables and returns their rows."""
    stages = Stages(name, options.output / name, data)
    few = 0.3 if options.quick else 1.0
    epochs = {stage: few * count for stage, count in plan.epochs.items()}
    start = stages.run("reference", dense, plan.build, epochs["reference"])
    start = stages.run("P", pruned, start, epochs["pruned"], plan.kept)
    stages.run("ours", clustered, start, epochs["clustered"], plan.bits)
    for number, (share, bits) in enumerate(plan.rungs):
        # Convolutions hold few weights that do much.
        small = [layer for layer in plan.kept if layer.startswith("conv")]
        kept = {k: value if k in small else share * value for k, value in plan.kept.items()}
        start = stages.run(f"sparser {number}", pruned, start, epochs["rung"], kept)
        title = f"smaller {number}"
        bits = {layer: bits + 1 if layer in small else bits for layer in plan.bits}
        stages.run(title, clustered, start, epochs["clustered"], bits, biases=4)
        if stages.rows[title]["validation"] > plan.limit + 0.3:
            break
    show(name, plan, stages)
    return stages.rows


class Stages:
    """Runs each stage once: its model is packed into a file, and all numbers are the file's."""

    def __init__(self, name, folder, data):
        self.name, self.folder, self.data, self.rows = name, folder, data, {}
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, title, make, *arguments, **settings):
        """The model of stage `title`, unpacked; made by `make` unless its file is there."""
        path = self.folder / f"{title}.krz"
        if not path.exists():
            kr.compress.pack(make(self.data, *arguments, **settings), path)
        model = kr.compress.unpack(path)
        self.rows[title] = {
            "bytes": path.stat().st_size,
            "error": error(model, *self.data["test"]),
            "validation": error(model, *self.data["validation"]),
        }
        row = self.rows[title]
        print(f"{self.name}, {title}: {row['bytes']:,} bytes, {row['error']:.2f} %", flush=True)
        return model

    def report(self, title):
        return kr.compress.size_report(self.folder / f"{title}.krz")


def dense(data, build, epochs):
    model = build()
    fit(model, data, epochs)
    return model


def pruned(data, start, epochs, kept):
    model = copy(start)
    fit(model, data, epochs, kept)
    return model


def clustered(data, start, epochs, bits, biases=None):
    model = copy(start)
    fit_shared(model, data, epochs, bits, biases)
    return model


def show(name, plan, stages):
    """The paper's table beside ours: forms that the paper compares, then the files."""
    pruned, ours = (stages.report(title) for title in ("P", "ours"))
    dense, rows = ours.total["dense"], stages.rows
    print(f"\n{name}: {ours.total['parameters']:,} weights, {dense:,} bytes in float32")
    print(f"{'':26}{'paper':>14}{'bytes':>11}{'smaller':>9}{'test error %':>14}")
    lines = [
        ("reference", f"{plan.limit:.2f} %", dense, rows["reference"]["error"]),
        ("P", f"{plan.paper['P']}x", pruned.total["sparse"], rows["P"]["error"]),
        ("P+Q", f"{plan.paper['P+Q']}x", ours.total["codebook"], rows["ours"]["error"]),
        (
            "P+Q+H",
            f"{plan.paper['P+Q+H']}x {plan.paper['error']:.2f} %",
            ours.total["huffman"],
            rows["ours"]["error"],
        ),
        ("ours, the whole file", "", rows["ours"]["bytes"], rows["ours"]["error"]),
    ]
    lines += [
        ("ours, past it", "", row["bytes"], row["error"])
        for title, row in rows.items()
        if title.startswith("smaller")
    ]
    for title, paper, size, wrong in lines:
        print(f"{title:26}{paper:>14}{size:11,}{dense / size:8.1f}x{wrong:14.2f}")
    print(f"\n{ours}\n", flush=True)


def fit(model, data, epochs, kept=None, rate=1e-3):
    """Trains; with `kept`, the smallest weights of each layer go to zero on the way."""
    kernels = {layer: model.get_layer(layer).kernel for layer in kept or {}}
    masks = {layer: tf.Variable(kernel != 0, dtype=tf.bool) for layer, kernel in kernels.items()}
    before = {layer: float(np.mean(mask.numpy())) for layer, mask in masks.items()}
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(x, y):
        gradients = gradients_of(model, x, y, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        for layer, kernel in kernels.items():
            kernel.assign(tf.where(masks[layer], kernel, 0.0))

    total = steps(data, epochs)
    updates = {round(total * 0.6 * part / 20) for part in range(21)}
    for done, batch in batches(data, epochs):
        optimizer.learning_rate.assign(cosine(rate, done))
        # The share falls on a cubic ramp until 60% of the steps, in Zhu and Gupta's way.
        if kept and batch["number"] in updates:
            ramp = max(0.0, 1 - (batch["number"] + 1) / (0.6 * total)) ** 3
            for layer, kernel in kernels.items():
                share = kept[layer] + (before[layer] - kept[layer]) * ramp
                masks[layer].assign(largest(kernel.numpy(), share))
        step(batch["x"], batch["y"])


def fit_shared(model, data, epochs, bits, biases=None, rate=3e-4):
    """Makes weights share 2^bits values a layer, and trains these; zeros stay zero.

    Han et al. 2016, section 3: k-means from centroids evenly between the extremes; the gradient
    of a centroid is the sum over its weights.
    """
    shared = [(model.get_layer(layer).kernel, 2**count) for layer, count in bits.items()]
    if biases:
        shared += [(model.get_layer(layer).bias, 2**biases) for layer in bits]
    trained, books = [], []
    for variable, count in shared:
        book, labels = k_means(variable.numpy(), count)
        books.append((variable, tf.Variable(book), tf.constant(labels)))
    taken = {id(variable) for variable, _, _ in books}
    free = [v for v in model.trainable_variables if id(v) not in taken]
    trained = [book for _, book, _ in books] + free
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build(trained)

    def use():
        for variable, book, labels in books:
            # The last entry is the zero, and stays it.
            values = tf.concat([book, [0.0]], 0)
            variable.assign(tf.reshape(tf.gather(values, labels), variable.shape))

    @tf.function
    def step(x, y):
        wanted = [variable for variable, _, _ in books] + free
        gradients = gradients_of(model, x, y, wanted)
        for index, (_, book, labels) in enumerate(books):
            flat = tf.reshape(gradients[index], [-1])
            sums = tf.math.unsorted_segment_sum(flat, labels, book.shape[0] + 1)
            gradients[index] = sums[:-1]
        optimizer.apply_gradients(zip(gradients, trained))
        use()

    use()
    for done, batch in batches(data, epochs):
        optimizer.learning_rate.assign(cosine(rate, done))
        step(batch["x"], batch["y"])
    # Two bytes a centroid in the file.
    for _, book, _ in books:
        book.assign(tf.cast(tf.cast(book, tf.float16), tf.float32))
    use()


def gradients_of(model, x, y, variables):
    with tf.GradientTape() as tape:
        logits = model(x, training=True)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        loss = tf.reduce_mean(loss)
    return tape.gradient(loss, variables)


def cosine(rate, done):
    return rate * (0.01 + 0.99 * (1 + np.cos(np.pi * done)) / 2)


def largest(values, share):
    """Where the `share` of largest magnitudes is."""
    magnitudes = np.abs(values)
    keep = max(1, round(share * values.size))
    return magnitudes >= np.partition(magnitudes.ravel(), -keep)[-keep]


def k_means(values, count):
    """Centroids, linear between the extremes at first, and the label of each weight."""
    flat = values.ravel()
    used = flat[flat != 0]
    book = np.unique(np.linspace(used.min(), used.max(), count)) if used.size else np.zeros(1)
    for _ in range(50):
        near = np.searchsorted((book[1:] + book[:-1]) / 2, used)
        sums, sizes = np.bincount(near, used, len(book)), np.bincount(near, minlength=len(book))
        book = np.sort(sums[sizes > 0] / sizes[sizes > 0])
    labels = np.searchsorted((book[1:] + book[:-1]) / 2, flat)
    return book.astype("float32"), np.where(flat == 0, len(book), labels).astype("int32")


def batches(data, epochs):
    """Yields how much is done, and a batch, each warped in one of 300 random ways."""
    x, y = data["train"]
    generator = np.random.default_rng(0)
    total = steps(data, epochs)
    order = np.zeros(0, int)
    for number in range(total):
        if len(order) < BATCH:
            order = generator.permutation(len(x))
        chosen, order = order[:BATCH], order[BATCH:]
        warp = data["warps"][generator.integers(len(data["warps"]))]
        images = np.asarray(x[chosen] @ warp, "float32").reshape(-1, 28, 28, 1)
        yield number / total, {"number": number, "x": images, "y": y[chosen]}


def steps(data, epochs) -> int:
    return max(1, round(epochs * len(data["train"][0]) / BATCH))


def warps(count=300, seed=0):
    """Small shifts, turns and scalings, each as a sparse matrix on flat images."""
    import scipy.sparse

    generator = np.random.default_rng(seed)
    row, column = (axis.ravel() for axis in np.mgrid[:28, :28])
    found = [scipy.sparse.identity(784, format="csr", dtype="float32")]
    for _ in range(count - 1):
        matrix = np.eye(2) + generator.normal(0, 0.06, (2, 2))
        place = matrix @ np.stack([row - 13.5, column - 13.5]) + 13.5
        place += generator.uniform(-1.0, 1.0, (2, 1))
        corner = np.floor(place).astype(int)
        part = place - corner
        entries = []
        for dr in (0, 1):
            for dc in (0, 1):
                r, c = corner[0] + dr, corner[1] + dc
                weight = abs(1 - dr - part[0]) * abs(1 - dc - part[1])
                inside = (r >= 0) & (r < 28) & (c >= 0) & (c < 28)
                at = np.flatnonzero(inside)
                entries.append((weight[inside], (r * 28 + c)[inside], at))
        weight, source, target = (np.concatenate(part) for part in zip(*entries))
        found.append(
            scipy.sparse.csr_matrix((weight, (source, target)), (784, 784), dtype="float32")
        )
    return found


def copy(model):
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    return twin


def error(model, x, y) -> float:
    """Per cent."""
    logits = model.predict(x.reshape(-1, 28, 28, 1), 500, verbose=0)
    return round(100 * float(np.mean(logits.argmax(-1) != y)), 2)


def mnist(limit):
    with np.load(DATA / "mnist.npz") as file:
        flat = {
            k: (v.reshape(-1, 784) / 255).astype("float32") for k, v in file.items() if "x" in k
        }
        y = {k: v.astype("int32") for k, v in file.items() if "y" in k}
    return {
        "train": (flat["x_train"][5000:][:limit], y["y_train"][5000:][:limit]),
        "validation": (flat["x_train"][:5000], y["y_train"][:5000]),
        "test": (flat["x_test"], y["y_test"]),
        "warps": warps(),
    }


if __name__ == "__main__":
    main()
