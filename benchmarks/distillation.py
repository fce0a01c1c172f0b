"""What a step of distillation takes with the teachers at hand, and with their logits from disk.

python benchmarks/distillation.py            # about two minutes
python benchmarks/distillation.py --quick    # does it run?
"""

import pathlib
import tempfile

import _common

NAME, BATCH = "distillation", 128


def main(arguments=None) -> dict:
    options = _common.parser(__doc__.partition("\n")[0], NAME).parse_args(arguments)
    _common.pin(options.core)
    rounds, steps = (2, 2) if options.quick else (10, 40)
    settings = {"quick": options.quick, "batch": BATCH, "rounds": rounds, "steps": steps}
    result = {"benchmark": NAME, "environment": _common.environment(), "settings": settings}
    result["rows"] = []
    for name, student, teachers in pairs(options.quick):
        runs = variants(student, teachers, max(2, steps), options.seed)
        found = _common.alternate(runs, rounds, steps, options.seed)
        for way, times in found.items():
            row = {"pair": name, "way": way, "cpu_ms": _common.spread([cpu for cpu, _ in times])}
            row["ratio"] = _common.ratios(found, way, "the student alone")
            result["rows"].append(row)
    path = _common.result_path(options, NAME)
    if path is not None:
        _common.save(path, result)
    show(result)
    return result


def pairs(quick: bool):
    """`(name, student, teachers)`, of random weights: times do not depend on what was learned."""
    import keras_robust as kr
    from keras_robust._keras import keras

    def dense(width):
        layers = [keras.layers.Dense(width, "relu") for _ in range(2)]
        shape = [keras.Input((28, 28, 1)), keras.layers.Flatten()]
        return keras.Sequential([*shape, *layers, keras.layers.Dense(10)])

    widths = (8, 12) if quick else (800, 1200)
    yield "2x800 units from 2x1200", dense(widths[0]), [dense(widths[1])]
    yield "2x800 units from three of 2x1200", dense(widths[0]), [dense(widths[1])] * 3
    if not quick:
        student = kr.zoo.lenet5()
        yield "LeNet-5 from the small CNN", student, [kr.zoo.small_cnn()]


def variants(student, teachers, steps, seed) -> dict:
    """Functions of a number of steps, each a `fit` of a copy of the student."""
    import numpy as np
    import tensorflow as tf

    import keras_robust as kr
    from keras_robust._keras import keras

    generator = np.random.default_rng(seed)
    x = generator.uniform(size=(steps * BATCH, 28, 28, 1)).astype("float32")
    y = generator.integers(0, 10, len(x)).astype("int32")
    plain = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH).prefetch(2)
    with tempfile.TemporaryDirectory() as folder:
        logits = np.array(kr.training.teacher_logits(teachers, x, pathlib.Path(folder) / "l.npy"))
    stored = kr.training.with_logits(x, y, logits, batch_size=BATCH)

    def fitted(make, data):
        trainer = make(keras.models.clone_model(student))
        return lambda count: trainer.fit(data.take(count), verbose=0) and None

    def distilled(given):
        def make(model):
            trainer = kr.Distillation(model, given, temperature=4.0)
            trainer.compile("adam", jit_compile=False)
            return trainer

        return make

    def alone(model):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, jit_compile=False)
        return model

    return {
        "the student alone": fitted(alone, plain),
        "teachers at hand": fitted(distilled(teachers), plain),
        "logits from disk": fitted(distilled("stored"), stored),
    }


def show(result) -> None:
    print(f"{'':34}{'way':20}{'CPU ms a step':>14}{'student alone = 1':>20}")
    for row in result["rows"]:
        time, ratio = row["cpu_ms"]["median"], row["ratio"]["median"]
        print(f"{row['pair']:34}{row['way']:20}{time:14.1f}{ratio:20.2f}")


if __name__ == "__main__":
    main()
