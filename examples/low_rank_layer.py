"""What the low-rank virtual layer does for representations, on CIFAR-10.

    python examples/low_rank_layer.py --quick     # two minutes on one core
    python examples/low_rank_layer.py             # the tables below

N-LR is a ResNet of four blocks; 1-LR has a low-rank layer before its classifier, 2-LR another one
before block 4 (Sanyal, Kanade, Torr and Dokania, https://arxiv.org/abs/1804.07090). All three go on
from one trained network, for the same number of epochs. No model is trained against attacks.

Measured (seed 0, 10,000 training images of CIFAR-10, 2,000 for the accuracies and spectra, 200 for
the attacks; in brackets 95% by Wilson), the paper's ResNet-50 beside it:

                                N-LR              1-LR              2-LR   paper: N-LR, LR
accuracy            80.0 (78.2-81.7)  78.7 (76.8-80.4)  78.8 (77.0-80.5)
variance in 10                 0.739             0.986             0.993   0.95 1.00
effective rank                  84.4              33.9              26.0
values for 99%                   105                20                 9

Max-margin probe (%) by dimensions     1      2      3      5     10     20
N-LR PCA                            23.1   41.9   57.1   68.4   75.8   78.8
1-LR PCA                            25.1   40.6   59.4   69.8   78.4   78.1
1-LR its own subspace               25.1   40.6   59.4   69.8   78.4
2-LR PCA                            24.6   41.6   58.2   70.3   77.0   77.3
2-LR its own subspace               24.6   41.6   58.3   70.3   77.1

Block 3 on disk, basis apart        N-LR        1-LR        2-LR   times smaller, accuracy (%) of
100 coordinates of 8 bits      217x 70.7   223x 72.0   217x 70.5   the network cut after block 3
40 coordinates of 8 bits       522x 65.3   521x 67.0   510x 68.3
20 coordinates of 8 bits      1010x 61.0  1005x 62.2   986x 63.7
10 coordinates of 8 bits      1923x 56.4  1950x 54.6  1871x 57.8

Cut after block 3, with a linear head: 119,034 instead of 310,266 parameters, 481,800 instead of
1,242,672 bytes of .tflite; accuracy N-LR 73.1 (71.1-75.0), 1-LR 74.0 (72.0-75.8), 2-LR 74.2
(72.2-76.0).

Under attack                    N-LR              1-LR              2-LR   paper: N-LR, LR
PGD-7 8/255            0.0 (0.0-1.9)     0.0 (0.0-1.9)     0.0 (0.0-1.9)    43.1  79.1
PGD-20 8/255           0.0 (0.0-1.9)     0.0 (0.0-1.9)     0.0 (0.0-1.9)    31.0  78.5
PGD-20 20/255          0.0 (0.0-1.9)     0.0 (0.0-1.9)     0.0 (0.0-1.9)     4.5  76.6
AutoAttack 8/255       0.0 (0.0-1.9)     0.0 (0.0-1.9)     0.0 (0.0-1.9)
DeepFool, median l2           0.1609            0.1561            0.1387
PGD-20 at 0.25/255              72.5              71.5              71.5
PGD-20 at 1/255                 43.5              42.5              39.5
PGD-20 at 2/255                 11.0              10.5              11.5
PGD-20 at 4/255                  1.0               1.0               1.0
pixels 0.4          41.5 (34.9-48.4)  44.0 (37.3-50.9)  37.5 (31.1-44.4)    69.7  75.1
pixels 0.6          32.5 (26.4-39.3)  31.5 (25.5-38.2)  32.0 (25.9-38.8)    26.1  34.2
pixels 0.8          25.5 (20.0-32.0)  26.5 (20.9-33.0)  26.5 (20.9-33.0)    12.6  15.8
pixels 1            22.0 (16.8-28.2)  25.5 (20.0-32.0)  23.5 (18.2-29.8)    11.3  13.0

Movement of the last representation under PGD-7, ||f(x+d)-f(x)||^2 / ||f(x)||^2 (random d)
 2/255                  0.105 (0.001)     0.017 (0.000)     0.018 (0.000)
 4/255                  0.359 (0.005)     0.056 (0.000)     0.059 (0.000)
 8/255                  0.960 (0.027)     0.135 (0.002)     0.147 (0.002)
16/255                  1.913 (0.119)     0.250 (0.009)     0.267 (0.009)

The layer brings nearly all variance into ten directions, the accuracies' intervals overlap, and
with ten dimensions a probe finds 78.4% where N-LR has 75.8%. The last representation moves a
seventh as far. It brings no robustness all the same: classes are that much closer together too,
next to nothing is left at 4/255, where all are equal, and DeepFool needs no longer ways. The
paper's accuracies under PGD hardly fall from 8/255 to 20/255, and its network without the layer
keeps 31% where others keep 0%: that looks like masked gradients. Random noise does about as much
harm to all three.
"""

import argparse
import json
import math
import os
import pathlib

import numpy as np
import tensorflow as tf
from _results import folder_of

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.analysis._figures import accuracy_eps
from keras_robust.analysis._lines import lines
from keras_robust.evaluation._intervals import wilson

DATA = pathlib.Path(os.environ.get("KERAS_ROBUST_DATA", "../shared/data"))
MODELS = {"N-LR": 0, "1-LR": 1, "2-LR": 2}
CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIMENSIONS = (1, 2, 3, 5, 10, 20)
# Accuracy (%) of the paper's ResNet-50 under PGD: without and with the layer.
PAPER = {
    "PGD-7 8/255": (43.1, 79.1),
    "PGD-20 8/255": (31.0, 78.5),
    "PGD-7 10/255": (38.5, 78.6),
    "PGD-20 10/255": (21.8, 78.1),
    "PGD-7 16/255": (31.2, 77.9),
    "PGD-20 16/255": (7.8, 77.0),
    "PGD-7 20/255": (28.9, 77.1),
    "PGD-20 20/255": (4.5, 76.6),
    "pixels 0.4": (69.7, 75.1),
    "pixels 0.6": (26.1, 34.2),
    "pixels 0.8": (12.6, 15.8),
    "pixels 1": (11.3, 13.0),
}
# Noise of a pixel is uniform in [-0.3, 0.3]; the paper does not say how large its is.
AMPLITUDE = 0.3


def main(arguments=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="little data, short training")
    parser.add_argument("--data", type=pathlib.Path, default=DATA, help="folder of the data set")
    parser.add_argument("--output", type=pathlib.Path, help="folder of results")
    parser.add_argument("--images", type=int, help="test images attacked")
    options = parser.parse_args(arguments)
    quick, output = options.quick, folder_of(options, "low_rank_layer")

    def load():
        path, limit = options.data / "cifar10_subset.npz", 800 if quick else None
        return kr.data.load(path, batch_size=None, limit=limit)

    width, epochs, more = (8, 4, 2) if quick else (16, 24, 16)
    # The data anew for each: all see the images in the same order.
    base = trained(output / "base.keras", network(0, width), load(), epochs, 0.1)
    models = {
        name: trained(output / f"{name}.keras", network(low_rank, width, base), load(), more, 0.05)
        for name, low_rank in MODELS.items()
    }
    data = load()
    train, test = kr.data.arrays(data.train), kr.data.arrays(data.test)
    images = options.images or (20 if quick else 200)
    results = {
        "representations": representations(models, train, test, output),
        "cut": cut_networks(models, train, test, output, 1 if quick else 4),
        "robustness": robustness(models, test, images, output, quick),
    }
    (output / "low_rank_layer.json").write_text(json.dumps(results, indent=1))
    return results


def representations(models, train, test, output) -> dict:
    """Accuracies, spectra and probes of the last representation, of 16 * 8 features."""
    found, ratios, curves = {}, {}, {}
    for name, model in models.items():
        z_train, z_test = (kr.transfer.embeddings(model, "pool", x) for x, _ in (train, test))
        ratios[name] = kr.analysis.variance_ratio(z_test)
        right = int(np.sum(model.predict(test[0], 250, verbose=0).argmax(-1) == test[1]))
        found[name] = {"correct": right, "total": len(test[1]), **ratios[name].to_dict()}
        found[name]["variance_at_10"] = ratios[name].at(10)
        methods = {"PCA": {}}
        if MODELS[name]:
            layer = model.get_layer("low_rank_pool")
            methods["own"] = {"method": "subspace", "subspace": layer}
        for method, settings in methods.items():
            most = min(DIMENSIONS[-1], layer.rank) if settings else DIMENSIONS[-1]
            fitted = kr.transfer.low_dimensional_embedding(z_train, most, **settings)
            for kind in ("max_margin", "logistic"):
                curves[f"{name} {method} {kind}"] = [
                    kr.transfer.probe(
                        fitted.first(k)(z_train), train[1], fitted.first(k)(z_test), test[1], kind
                    ).accuracy
                    for k in DIMENSIONS
                    if k <= most
                ]
        kr.transfer.class_plot(
            z_test, test[1], output / f"classes_{name}.png", name, class_names=CLASSES
        )
    kr.analysis.plot_variance(ratios, output / "variance.png", largest=30)
    lines(
        {n: (DIMENSIONS[: len(c)], np.multiply(c, 100)) for n, c in curves.items() if "max" in n},
        output / "probes.png",
        "Max-margin probe on few dimensions",
        x_label="dimensions",
        y_label="accuracy (%)",
    )
    print("\n" + columns("", models), "  paper: N-LR, LR")
    shares = {name: (m["correct"], m["total"]) for name, m in found.items()}
    print(columns("accuracy", (share(*pair) for pair in shares.values())))
    ratios = found.values()
    print(columns("variance in 10", (f"{m['variance_at_10']:.3f}" for m in ratios)), "  0.95 1.00")
    print(columns("effective rank", (f"{m['effective_rank']:.1f}" for m in ratios)))
    print(columns("values for 99%", (str(m["rank_99"]) for m in ratios)))
    print("\nProbe accuracy (%) by dimensions")
    print(f"{'':26}" + "".join(f"{k:>7}" for k in DIMENSIONS))
    for name, curve in curves.items():
        print(f"{name:26}" + "".join(f"{100 * a:7.1f}" for a in curve), flush=True)
    return {"models": found, "probes": curves}


def cut_networks(models, train, test, output, epochs) -> dict:
    """Networks cut after block 3 with a linear head, and that representation on disk."""
    print("\nCut after block 3: accuracy, parameters, bytes of the .tflite file")
    found = {}
    for name, model in models.items():
        cut = kr.transfer.replace_head(model, "block3", classes=10)
        keras.utils.set_random_seed(0)
        cut.compile(keras.optimizers.Adam(1e-3), loss(), metrics=["accuracy"])
        cut.fit(*train, batch_size=128, epochs=epochs, verbose=0)
        sizes = {}
        for part, network in (("whole", kr.layers.strip_virtual(model)), ("cut", cut)):
            exported = kr.export.tflite(network, output / f"{name}_{part}.tflite", check=test[0])
            right = int(np.sum(network.predict(test[0], 250, verbose=0).argmax(-1) == test[1]))
            sizes[part] = {
                "correct": right,
                "parameters": kr.transfer.parameters(network).total,
                "bytes": exported.bytes,
            }
            print(
                f"{name:6}{part:7}{share(right, len(test[1])):>18}"
                f"{sizes[part]['parameters']:>10,}{exported.bytes:>12,}"
            )
        kernel, bias = cut.layers[-1].get_weights()
        z_fit, z_test = (
            kr.transfer.embeddings(model, "block3", x) for x in (train[0][:3000], test[0])
        )
        fitted = kr.transfer.low_dimensional_embedding(z_fit, 100)
        files = []
        for rank, bits in ((100, 8), (40, 8), (20, 8), (10, 8), (10, 4)):
            path = output / f"{name}.kre"
            stored = kr.transfer.save_embeddings(path, z_test, rank, bits=bits, projection=fitted)
            again = kr.transfer.load_embeddings(path, fitted)
            right = int(np.sum((again @ kernel + bias).argmax(-1) == test[1]))
            files.append([rank, bits, stored.bytes, stored.factor, right / len(test[1])])
        basis = kr.transfer.save_projection(output / f"{name}_basis.kre", fitted)
        found[name] = {**sizes, "files": files, "basis_bytes": basis}
    print(
        "\nEmbeddings of block 3 on disk, basis apart: times smaller, accuracy (%) of the cut head"
    )
    for index, (rank, bits, *_) in enumerate(files):
        cells = [found[name]["files"][index] for name in models]
        cells = (f"{cell[3]:.0f}x {100 * cell[4]:.1f}" for cell in cells)
        print(columns(f"{rank} of {bits} bits", cells), flush=True)
    return found


def robustness(models, test, images, output, quick) -> dict:
    """Accuracies under attack, and how far attacks move the last representation."""
    x, y = (part[:images] for part in test)
    artifacts = {
        name: attacked(name, model, x, y, output / "reports" / name, quick)
        for name, model in models.items()
    }
    print(f"\nAccuracy (%) under attack, {images} images" + " " * 34 + "paper: N-LR, LR")
    for row in ["clean", *artifacts["N-LR"]["robust_accuracy"]]:
        shares = [
            a["clean_accuracy"] if row == "clean" else a["robust_accuracy"][row]
            for a in artifacts.values()
        ]
        cells = (share(round(s * images), images) for s in shares)
        print(columns(row, cells), "  {:5} {:5}".format(*PAPER.get(row, ("", ""))))
    medians = (a["distortion"]["DeepFool"]["median"] for a in artifacts.values())
    medians = ("none right" if found is None else f"{found:.4f}" for found in medians)
    print(columns("DeepFool, median l2", medians))
    sweeps = {
        name: ([float(eps) for eps in a["sweep"]], list(a["sweep"].values()))
        for name, a in artifacts.items()
    }
    for index, eps in enumerate(sweeps["N-LR"][0]):
        cells = (f"{100 * curve[1][index]:.1f}" for curve in sweeps.values())
        print(columns(f"sweep, {255 * eps:.3g}/255", cells), flush=True)
    accuracy_eps(sweeps, output / "eps.png", "PGD, no adversarial training", chance=0.1)
    stability = {
        name: kr.analysis.noise_stability(
            model, x[:100], y[:100], "pool", kr.attacks.PGD(eps=0.0, steps=7)
        )
        for name, model in models.items()
    }
    kr.analysis.plot_stability(stability, output / "stability.png", 'Movement of "pool"')
    print("\nMovement of the last representation, ||f(x+d)-f(x)||^2 / ||f(x)||^2")
    for index, eps in enumerate(stability["N-LR"].eps):
        for kind in ("adversarial", "random"):
            cells = (f"{s.moved[kind][index]:.3f}" for s in stability.values())
            print(columns(f"{kind} {255 * eps:.0f}/255", cells))
    return {
        "artifacts": artifacts,
        "stability": {name: found.to_dict() for name, found in stability.items()},
    }


def attacked(name, model, x, y, folder, quick) -> dict:
    """What an evaluation found: the one kept in `folder`, or a new one."""
    if (folder / "report.json").exists():
        return kr.Report.load(folder).to_dict()["artifacts"][name]
    radii, steps = ((8,), (7,)) if quick else ((8, 10, 16, 20), (7, 20))
    attacks = {
        f"PGD-{n} {r}/255": kr.attacks.PGD(eps=r / 255, steps=n) for r in radii for n in steps
    }
    for p in (0.4, 1.0) if quick else (0.4, 0.6, 0.8, 1.0):
        rms = AMPLITUDE * (p / 3) ** 0.5
        attacks[f"pixels {p:g}"] = kr.attacks.Noise(rms, kind="pixel", share=p)
    attacks["DeepFool"] = kr.attacks.DeepFool()
    if not quick:
        attacks["AutoAttack 8/255"] = kr.attacks.AutoAttack(8 / 255)
    report = kr.evaluate(
        {name: kr.layers.strip_virtual(model)},
        x,
        y,
        attacks,
        batch_size=100,
        eps_sweep=[radius / 255 for radius in (0, 0.25, 0.5, 1, 2, 4, 8)],
        sweep_images=len(x),
        latency_runs=3,
        progress=False,
        title=f"{name}, no adversarial training",
    )
    report.save(folder)
    return report.to_dict()["artifacts"][name]


def columns(name, cells) -> str:
    return f"{name:20}" + "".join(f"{cell:>18}" for cell in cells)


def share(right: int, total: int) -> str:
    """Percent, with its 95% interval by Wilson."""
    low, high = wilson(right, total)
    return f"{100 * right / total:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def trained(path, model, data, epochs, rate):
    """The model on disk at `path`, or `model`, trained and kept there."""
    if path.exists():
        return keras.models.load_model(path, compile=False)
    print(f"training {path.stem}", flush=True)
    keras.utils.set_random_seed(0)
    batches = augmented(data.train)
    rate = keras.optimizers.schedules.CosineDecay(rate, epochs * int(batches.cardinality()))
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    model.compile(optimizer, loss(), metrics=["accuracy"])
    validation = data.test.batch(250)
    model.fit(batches, epochs=epochs, validation_data=validation, verbose=2)
    model.save(path)
    return model


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(low_rank=0, width=16, base=None):
    """A ResNet of four blocks, with `low_rank` low-rank layers and the weights of `base`."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Rescaling(4.0, -2.0, name="normalize")(inputs)
    x = convolution(x, width, 1, "stem")
    for block in range(1, 5):
        if block == 4 and low_rank == 2:
            x = virtual(x, 100, 1.0, "low_rank_block3")
        stride, filters = 1 if block == 1 else 2, width * 2 ** (block - 1)
        y = convolution(x, filters, stride, f"block{block}_a")
        y = convolution(y, filters, 1, f"block{block}_b", relu=False)
        if stride != 1:
            x = convolution(x, filters, stride, f"block{block}_short", size=1, relu=False)
        x = keras.layers.Add(name=f"block{block}_add")([x, y])
        x = keras.layers.ReLU(name=f"block{block}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if low_rank:
        x = virtual(x, 10, 60.0, "low_rank_pool")
    model = keras.Model(inputs, keras.layers.Dense(10, name="logits")(x))
    for layer in base.layers if base else ():
        model.get_layer(layer.name).set_weights(layer.get_weights())
    return model


def virtual(x, rank, weight, name):
    """A low-rank layer that sees activations in units of the root of their number.

    They have a length of about one then, as its norm loss wants it; with lengths of 10 and 60 the
    losses outweigh the classes by far, and the network collapses or diverges.
    """
    length = math.prod(x.shape[1:]) ** 0.5
    x = keras.layers.Rescaling(1 / length, name=f"{name}_in")(x)
    x = kr.layers.LowRankVirtual(rank, projection_weight=weight, name=name)(x)
    return keras.layers.Rescaling(length, name=f"{name}_out")(x)


def convolution(x, filters, stride, name, size=3, relu=True):
    decay = keras.regularizers.L2(2.5e-4)
    x = keras.layers.Conv2D(
        filters, size, stride, padding="same", use_bias=False, kernel_initializer="he_normal",
        kernel_regularizer=decay, name=f"{name}_conv",
    )(x)  # fmt: skip
    x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x) if relu else x


def augmented(images, batch=128):
    """Batches of images that were shifted by up to 4 pixels and mirrored at random."""

    def augment(image_and_label, seed):
        image, label = image_and_label
        image = tf.pad(image, [[4, 4], [4, 4], [0, 0]], "REFLECT")
        image = tf.image.stateless_random_crop(image, (32, 32, 3), seed)
        return tf.image.stateless_random_flip_left_right(image, seed + 1), label

    seeds = tf.data.Dataset.random(seed=0, rerandomize_each_iteration=True).batch(2)
    pairs = tf.data.Dataset.zip((images, seeds)).map(augment)
    return pairs.batch(batch, drop_remainder=True).prefetch(2)


if __name__ == "__main__":
    main()
