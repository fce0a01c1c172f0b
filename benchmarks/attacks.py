"""Robust accuracy and time of our attacks beside ART's, Foolbox's and CleverHans'.

    python benchmarks/attacks.py            # a few minutes; writes results/
    python benchmarks/attacks.py --table    # the table of what was written, runs nothing

Same weights, same 1,000 test images of the embedded data, same eps, steps, step size, random
start and restarts, in one process run. The contenders alternate in random order batch by
batch, on one pinned core with one thread, traced before. An image counts as robust when it
is classified right both clean and attacked.
"""

import pathlib
import random
import sys

import _common
import tables

EPS = {"linf": 0.1, "l2": 1.0, "l1": 10.0}
LIMIT = 0.5  # points of robust accuracy that a peer's attack may be stronger
# Float32 sums of 784 pixels; beyond that an example has left its ball.
TOLERANCE = {"linf": 1e-6, "l2": 1e-5, "l1": 1e-4}
OURS = "keras_robust"


def main(arguments=None) -> dict | None:
    options = _common.parser(__doc__.partition("\n")[0], "attacks")
    options.add_argument("--images", type=int, default=1000)
    options.add_argument("--batch", type=int, default=250)
    options.add_argument("--steps", type=int, default=20)
    options.add_argument(
        "--weights",
        type=pathlib.Path,
        nargs="+",
        help="weights of small_cnn to attack instead of training: .weights.h5 or .keras files",
    )
    options.add_argument("--table", action="store_true", help="print the tables of results/")
    options = options.parse_args(arguments)
    if options.table:
        print(tables.attacks())
        return None
    if options.quick:
        options.images, options.batch, options.steps = 32, 16, 2
    if options.images % options.batch:
        sys.exit(f"--images {options.images} is no multiple of --batch {options.batch}")
    _common.pin(options.core)
    result = measure(options)
    path = _common.result_path(options, "attacks")
    if path is not None:
        _common.save(path, result)
    print(tables.render_attacks(result))
    return result


def measure(options) -> dict:
    """Attacks every model; the result as it is written."""
    import _peers
    import numpy as np
    import tensorflow as tf

    import keras_robust as kr
    from keras_robust.data import arrays

    np.random.seed(options.seed)  # ART draws from here, the other peers from TensorFlow's.
    tf.random.set_seed(options.seed)
    data = kr.data.load(seed=options.seed)
    x, y = arrays(data.test, limit=options.images)
    peers, left_out = _peers.available(not options.no_peers)
    rows, clean = [], {}
    for name, model in _models(data.train, options).items():
        right = _right(model, x, y)
        clean[name] = round(100 * float(right.mean()), 2)
        for norm in ("linf", "l1") if options.quick else EPS:
            for attack, settings in _attacks(norm, options.steps).items():
                print(f"{name}: {attack} {norm}", file=sys.stderr, flush=True)
                contenders = _contenders(model, norm, settings, peers, options)
                for row in _run(model, contenders, x, y, right, norm, options):
                    rows.append({"model": name, "norm": norm, "attack": attack, **row})
    worst = max((lead for *_, lead in leads(rows)), default=None)
    return {
        "benchmark": "attacks",
        "environment": _common.environment(),
        "settings": {
            "model": "kr.zoo.small_cnn()",
            "images": options.images,
            "batch": options.batch,
            "steps": options.steps,
            "step_size": "2.5 eps / steps",
            "eps": EPS,
            "seed": options.seed,
            "quick": options.quick,
        },
        "clean_accuracy": clean,
        "target": {
            "limit_points": LIMIT,
            "worst_points": worst,
            "met": None if worst is None else worst <= LIMIT,
        },
        "tolerance": TOLERANCE,
        "rows": rows,
        "left_out": left_out,
    }


def leads(rows):
    """(model, norm, attack, points by which the strongest peer is ahead of us)."""
    cells = dict.fromkeys((r["model"], r["norm"], r["attack"]) for r in rows)
    for cell in cells:
        here = [r for r in rows if (r["model"], r["norm"], r["attack"]) == cell]
        ours = [r["robust_accuracy"] for r in here if r["name"] == OURS]
        # A peer's example outside the ball breaks nothing.
        theirs = [r["robust_accuracy_inside"] for r in here if not r["name"].startswith(OURS)]
        if theirs:
            yield *cell, round(ours[0] - min(theirs), 2)


def _models(train, options) -> dict:
    """Name -> small_cnn, trained here in a seeded way or loaded."""
    import _steps

    import keras_robust as kr
    from keras_robust._keras import keras

    if options.weights:
        models = {}
        for path in options.weights:
            model = kr.zoo.small_cnn()
            if path.suffix == ".keras":
                model.set_weights(keras.models.load_model(path, compile=False).get_weights())
            else:
                model.load_weights(path)
            models[path.name.partition(".")[0]] = model
        return models
    if options.quick:
        train = train.take(4)
    epochs = 1 if options.quick else 4
    natural = _steps.compiled(kr.zoo.small_cnn(seed=options.seed))
    natural.fit(train, epochs=epochs, shuffle=False, verbose=0)
    robust = kr.zoo.small_cnn(seed=options.seed)
    attack = kr.attacks.PGD(eps=EPS["linf"], steps=5)
    trainer = _steps.compiled(kr.AdversarialTraining(robust, attack, seed=options.seed))
    trainer.fit(train, epochs=epochs, shuffle=False, verbose=0)
    return {"natural": natural, "adversarially trained": robust}


def _attacks(norm, steps) -> dict:
    """Name -> settings beside norm and eps; none for the fast gradient method."""
    pgd = {"steps": steps, "step_size": 2.5 * EPS[norm] / steps}
    return {
        "FGSM": {},
        f"PGD-{steps}": {**pgd, "restarts": 1},
        f"PGD-{steps} x3": {**pgd, "restarts": 3},
    }


def _contenders(model, norm, settings, peers, options) -> dict:
    """Name -> function of numpy arrays (x, y) and the number of the batch."""
    import _peers

    import keras_robust as kr

    def ours(attack):
        return lambda x, y, number: attack(model, x, y, options.seed + number).numpy()

    def theirs(attack):
        return lambda x, y, number: attack(x, y)

    common = {"eps": EPS[norm], "norm": norm}
    if settings:
        made = {
            OURS: ours(kr.attacks.PGD(**common, **settings)),
            f"{OURS}, keep_best=False": ours(kr.attacks.PGD(**common, **settings, keep_best=False)),
        }
    else:
        made = {OURS: ours(kr.attacks.FGSM(**common))}
    sparse = [_peers.SPARSE] if "Foolbox" in peers else []
    for peer in peers + sparse:
        attack = _peers.attack(peer, model, **common, **settings, batch=options.batch)
        if attack is not None:
            made[peer] = theirs(attack)
    return made


def _run(model, contenders, x, y, right, norm, options) -> list[dict]:
    """Every contender on every batch; a row each."""
    import numpy as np

    batches = [slice(i, i + options.batch) for i in range(0, len(x), options.batch)]
    for attack in contenders.values():
        attack(x[batches[0]], y[batches[0]], 0)  # Traces and compiles.
    order = random.Random(options.seed)
    found = {name: [] for name in contenders}
    spent = {name: [0.0, 0.0] for name in contenders}
    for number, rows in enumerate(batches):
        for name in order.sample(list(contenders), len(contenders)):
            clock = _common.Clock()
            found[name].append(contenders[name](x[rows], y[rows], number))
            for place, seconds in enumerate(clock.read()):
                spent[name][place] += seconds
    out = []
    for name in contenders:
        x_adv = np.concatenate(found[name])
        outside = _size(x_adv.astype("float64") - x, norm) - EPS[norm]
        beyond = max(float(-x_adv.min()), float(x_adv.max()) - 1.0, 0.0)
        still = right & _right(model, x_adv, y)
        left = outside > TOLERANCE[norm]
        out.append(
            {
                "name": name,
                "robust_accuracy": round(100 * float(still.mean()), 2),
                "robust_accuracy_inside": round(100 * float((still | right & left).mean()), 2),
                "outside_ball": int(left.sum()),
                "largest_excess": max(float(outside.max()), 0.0),
                "beyond_bounds": beyond,
                "cpu_s": round(spent[name][0], 3),
                "wall_s": round(spent[name][1], 3),
            }
        )
    return out


def _size(delta, norm):
    import numpy as np

    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    return np.linalg.norm(delta.reshape(len(delta), -1), ord=order, axis=1)


def _right(model, x, y):
    """`(n,)` bool: classified right."""
    return model(x, training=False).numpy().argmax(-1) == y


if __name__ == "__main__":
    main()
