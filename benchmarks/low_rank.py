"""What the low-rank virtual layer costs: its projections, and a training step with it.

python benchmarks/low_rank.py            # a few minutes
python benchmarks/low_rank.py --quick    # does it run?
"""

import _common

NAME = "low_rank"
RANK, COLUMNS, DRAWS, EVERY = 10, 20, 5, 10


def main(arguments=None) -> dict:
    options = _common.parser(__doc__.partition("\n")[0], NAME).parse_args(arguments)
    _common.pin(options.core)
    quick, widths = options.quick, [128, 256, 512, 1024, 2048, 4096, 8192, 16384]
    settings = {"quick": quick, "rank": RANK, "columns": COLUMNS, "draws": DRAWS, "every": EVERY}
    result = {"benchmark": NAME, "environment": _common.environment(), "settings": settings}
    result["layer"] = layer_alone([64, 512] if quick else [*widths], options.seed, quick)
    result["step"] = step_overhead(options.seed, quick)
    result["projection"] = projections([64, 128] if quick else widths, 2 if quick else 5)
    result["growth"] = growth(result["projection"])
    path = _common.result_path(options, NAME)
    if path is not None:
        _common.save(path, result)
    show(result)
    return result


def projections(widths, rounds) -> list[dict]:
    """CPU milliseconds of each projection of W at each width, and of its parts."""
    import tensorflow as tf

    from keras_robust._seed import as_seed
    from keras_robust.layers import _projection

    seed, rows = as_seed(0), []
    functions = {
        "svd": lambda w: tf.matmul(*_projection.exact(w, RANK)),
        "nystrom": lambda w: tf.matmul(*_projection.nystrom(w, RANK, COLUMNS, seed)),
        "ensemble": lambda w: tf.matmul(*_projection.ensemble(w, RANK, COLUMNS, DRAWS, seed)),
        "nystrom, its basis": lambda w: basis(w, COLUMNS),
        "nystrom, its basis, 4 l": lambda w: basis(w, 4 * COLUMNS),
    }
    for width in widths:
        w = near_projector(width)
        for name, function in functions.items():
            if name == "svd" and width > 1024:
                continue
            traced = tf.function(function)
            traced(w)
            times = []
            for _ in range(rounds):
                clock = _common.Clock()
                traced(w)
                times.append(1e3 * clock.read()[0])
            rows.append({"m": width, "method": name, "cpu_ms": _common.spread(times)})
        del w
        print(f"projections of m = {width}", flush=True)
    return rows


def basis(w, columns):
    """What of a Nystrom projection costs m l^2: its columns are given, not drawn."""
    import tensorflow as tf

    from keras_robust.layers._projection import _leading

    q, r = tf.linalg.qr(w[:, :columns])
    return tf.matmul(q, _leading(tf.matmul(r, r, transpose_b=True), RANK))


def near_projector(width):
    import numpy as np
    import tensorflow as tf

    generator = np.random.default_rng(0)
    u = generator.normal(size=(width, RANK)).astype("float32")
    w = tf.linalg.matmul(u, u, transpose_b=True) / width
    return w + 0.02 * generator.standard_normal((width, width), dtype="float32") / width**0.5


def growth(rows) -> dict:
    """The exponent of m in the time of each method, fitted from m = 512 on."""
    import numpy as np

    found = {}
    for method in sorted({row["method"] for row in rows}):
        points = [(r["m"], r["cpu_ms"]["median"]) for r in rows if r["method"] == method]
        points = [(m, t) for m, t in points if m >= 512 and t > 0]
        if len(points) > 1:
            m, t = np.log(np.array(points)).T
            found[method] = round(float(np.polyfit(m, t, 1)[0]), 2)
    return found


def step_overhead(seed, quick) -> dict:
    """A training step of ResNet-18 with the layer before its classifier (m = 512), and without."""
    import numpy as np

    import keras_robust as kr
    from keras_robust._keras import keras

    batch, rounds, steps = (2, 1, 2) if quick else (16, 7, EVERY)
    x = np.random.default_rng(seed).uniform(size=(batch, 32, 32, 3)).astype("float32")
    y = (np.arange(batch) % 10).astype("int32")

    def trained(virtual):
        base = kr.zoo.build("resnet18")
        h = base.layers[-2].output
        if virtual:
            h = kr.layers.LowRankVirtual(RANK, every=EVERY)(h)
        model = keras.Model(base.input, keras.layers.Dense(10)(h))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss, jit_compile=False)

        def run(count):
            for _ in range(count):
                model.train_on_batch(x, y)

        return run

    # As many steps a round as lie between projections, so that each round pays for one.
    variants = {"plain": trained(False), "with the layer": trained(True)}
    found = _common.alternate(variants, rounds, steps, seed)
    times = {name: _common.spread([cpu for cpu, _ in pairs]) for name, pairs in found.items()}
    ratio = _common.ratios(found, "with the layer", "plain")
    return {"m": 512, "batch": batch, "cpu_ms": times, "ratio": ratio}


def layer_alone(widths, seed, quick) -> list[dict]:
    """CPU milliseconds that the layer adds to a step at each width, projections included."""
    import numpy as np
    import tensorflow as tf

    import keras_robust as kr

    rows, batch = [], 16
    for width in widths:
        a = np.random.default_rng(seed).normal(size=(batch, width)).astype("float32")
        layer = kr.layers.LowRankVirtual(RANK, every=EVERY)
        layer.build(a.shape)

        @tf.function
        def step(a, layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(a)
                layer(a, training=True)
                loss = tf.add_n(layer.losses)
            return tape.gradient(loss, a)

        step(tf.constant(a))
        times = []
        for _ in range(2 if quick else 7):
            clock = _common.Clock()
            for _ in range(EVERY):
                step(tf.constant(a))
            times.append(1e3 * clock.read()[0] / EVERY)
        rows.append(
            {"m": width, "method": layer.resolved_method, "batch": batch}
            | {"cpu_ms": _common.spread(times)}
        )
    return rows


def show(result) -> None:
    print("\n| m | projection | CPU ms |\n|--:|---|--:|")
    for row in result["projection"]:
        print(f"| {row['m']:,} | {row['method']} | {row['cpu_ms']['median']:.2f} |")
    print("\nTime grows as m to the power:", result["growth"])
    print("\n| m | method | CPU ms that the layer adds to a step |\n|--:|---|--:|")
    for row in result["layer"]:
        print(f"| {row['m']:,} | {row['method']} | {row['cpu_ms']['median']:.2f} |")
    step = result["step"]
    plain, virtual = (step["cpu_ms"][name]["median"] for name in ("plain", "with the layer"))
    ratio = step["ratio"]
    print(
        f"\nResNet-18, batch {step['batch']}: {plain:.0f} CPU ms a step, {virtual:.0f} with the "
        f"layer, ratio {ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"
    )


if __name__ == "__main__":
    main()
