"""Strength and time of our attacks beside the peers', on the same weights and images.

    python benchmarks/attacks.py            # a quarter of an hour; writes results/
    python benchmarks/attacks.py --table    # the table of what was written, runs nothing

Same weights, same test images of the embedded data, same budget (`_contests.py`), in one
process run; peers on torch in a process of their own beside it. The contenders alternate in
random order batch by batch, on one pinned core with one thread, traced before. An image
counts as robust when it is classified right both clean and attacked.
"""

import json
import pathlib
import random
import statistics
import sys

import _common
import tables
from _contests import EPS, NATURAL, OURS, ROBUST, contests, ours

LIMIT = 0.5  # points of robust accuracy that a peer's attack may be stronger
FARTHER = 1.02  # how far our median distortion may be above a peer's
# Float32 sums of 784 pixels; beyond that an example has left its ball.
TOLERANCE = {"linf": 1e-6, "l2": 1e-5, "l1": 1e-4}
TF_PEERS = ("ART", "Foolbox", "CleverHans")


def main(arguments=None) -> dict | None:
    options = _common.parser(__doc__.partition("\n")[0], "attacks")
    options.add_argument("--only", nargs="+", metavar="KIND", help="such as pgd, fab-t, cw")
    options.add_argument(
        "--torch", type=pathlib.Path, help="interpreter that has torch, for the peers on torch"
    )
    options.add_argument(
        "--torch-path", type=pathlib.Path, nargs="*", default=[], help="folders for its PYTHONPATH"
    )
    options.add_argument(
        "--weights",
        type=pathlib.Path,
        nargs="+",
        help="weights of small_cnn to attack instead of training: .weights.h5 or .keras files, "
        "natural and adversarially trained",
    )
    options.add_argument("--table", action="store_true", help="print the tables of results/")
    options = options.parse_args(arguments)
    if options.table:
        print(tables.attacks())
        return None
    _common.pin(options.core)
    # A part is no result.
    path = options.output if options.only else _common.result_path(options, "attacks")
    result = measure(options, path)
    if path is not None:
        _common.save(path, result)
    print(tables.render_attacks(result))
    return result


def measure(options, path=None) -> dict:
    """Attacks every model; the result as it is written, what is measured kept beside `path`."""
    import _peers
    import numpy as np
    import tensorflow as tf

    import keras_robust as kr
    from keras_robust.data import arrays

    np.random.seed(options.seed)  # ART draws from here, the other peers from TensorFlow's.
    tf.random.set_seed(options.seed)
    data = kr.data.load(seed=options.seed)
    wanted = contests(options.quick, options.only)
    x, y = arrays(data.test, limit=max(contest.images for contest in wanted))
    peers, left_out = _peers.available(not options.no_peers)
    beside = _torch(options, left_out)
    rows, clean, failed = [], {}, {}
    environment, kept = _common.environment(), _Kept(path)
    rivals = [*peers, *(beside.names if beside is not None else ())]
    run_by = [options.seed, rivals, environment["commit"]]
    for name, model in _models(data.train, options).items():
        if beside is not None:
            beside.load(model)
        clean[name] = round(100 * float(np.mean(_margins(model, x, y) > 0)), 2)
        for contest in (contest for contest in wanted if name in contest.models):
            print(f"{name}: {contest.name} {contest.norm}", file=sys.stderr, flush=True)
            cell = {"model": name, "norm": contest.norm, "attack": contest.name}

            def run(name=name, model=model, contest=contest):
                contenders = _contenders(model, contest, peers, beside, options.seed)
                lost = {}
                return _run(model, contenders, x, y, contest, options.seed, lost), lost

            found, lost = kept.once([cell, clean[name], repr(contest), run_by], run)
            rows += [{**cell, **row} for row in found]
            failed |= lost
    worst = max((lead for *_, lead in leads(rows)), default=None)
    farthest = max((ratio for *_, ratio in distances(rows)), default=None)
    met = [worst <= LIMIT] if worst is not None else []
    met += [farthest <= FARTHER] if farthest is not None else []
    kept.forget()
    return {
        "benchmark": "attacks",
        "environment": environment | (beside.versions if beside is not None else {}),
        "settings": {
            "model": "kr.zoo.small_cnn()",
            "eps": EPS,
            "seed": options.seed,
            "quick": options.quick,
        },
        "clean_accuracy": clean,
        "target": {
            "limit_points": LIMIT,
            "worst_points": worst,
            "limit_ratio": FARTHER,
            "worst_ratio": farthest,
            "met": all(met) if met else None,
            "slower": [list(case) for case in slower(rows)],
        },
        "tolerance": TOLERANCE,
        "rows": rows,
        "left_out": left_out,
        "failed": failed,
    }


class _Kept:
    """What an interrupted run has measured, in a file beside the result's."""

    def __init__(self, path):
        self.path = None if path is None else path.with_suffix(".kept.json")
        there = self.path is not None and self.path.exists()
        self.found = json.loads(self.path.read_text()) if there else {}

    def once(self, key, run):
        """What `run` returns for `key`, or returned before."""
        key = json.dumps(key)
        if key not in self.found:
            self.found[key] = run()
            if self.path is not None:
                _common.save(self.path, self.found)
        return self.found[key]

    def forget(self):
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def leads(rows):
    """(model, norm, attack, points by which the strongest peer is ahead of us) in a ball."""
    for cell, own, others in _cells(rows):
        # A peer's example outside the ball breaks nothing.
        theirs = [row["robust_accuracy_inside"] for row in others if "robust_accuracy" in row]
        if theirs and "robust_accuracy" in own:
            yield *cell, round(own["robust_accuracy"] - min(theirs), 2)


def distances(rows):
    """(model, norm, attack, our median distortion as a multiple of the smallest peer's)."""
    for cell, own, others in _cells(rows):
        theirs = [row["median"] for row in others if row.get("median")]
        if theirs and own.get("median"):
            yield *cell, round(own["median"] / min(theirs), 4)


def slower(rows):
    """(model, norm, attack, peer, our time as a multiple of its) for faster TensorFlow peers."""
    for cell, own, others in _cells(rows):
        for row in others:
            if row["name"].startswith(TF_PEERS) and own.get("cpu_ms", 0) > row.get("cpu_ms", 0):
                yield *cell, row["name"], round(own["cpu_ms"] / row["cpu_ms"], 2)


def _cells(rows):
    """((model, norm, attack), our row, the peers' rows)."""
    cells = dict.fromkeys((r["model"], r["norm"], r["attack"]) for r in rows)
    for cell in cells:
        here = [r for r in rows if (r["model"], r["norm"], r["attack"]) == cell]
        own = [r for r in here if r["name"] == OURS]
        if own:
            yield cell, own[0], [r for r in here if not r["name"].startswith(OURS)]


def _torch(options, left_out):
    """The peers on torch; None when there are none."""
    from _torch_peers import NAMES, TorchPeers

    if options.no_peers or options.torch is None:
        reason = "--no-peers" if options.no_peers else "no --torch"
        left_out |= dict.fromkeys(NAMES, reason)
        return None
    beside = TorchPeers(options.torch, options.torch_path)
    left_out |= beside.missing
    return beside


def _models(train, options) -> dict:
    """Name -> small_cnn, trained here in a seeded way or loaded."""
    import _steps

    import keras_robust as kr
    from keras_robust._keras import keras

    if options.weights:
        models = {}
        for name, path in zip((NATURAL, ROBUST), options.weights):
            model = kr.zoo.small_cnn()
            if path.suffix == ".keras":
                model.set_weights(keras.models.load_model(path, compile=False).get_weights())
            else:
                model.load_weights(path)
            models[name] = model
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
    return {NATURAL: natural, ROBUST: robust}


def _contenders(model, contest, peers, beside, seed) -> dict:
    """Name -> function of numpy arrays (x, y) and the number of the batch."""
    import _tf_peers

    def own(attack):
        return lambda x, y, number: attack(model, x, y, seed + number).numpy()

    def theirs(attack):
        return lambda x, y, number: attack(x, y)

    made = {name: own(attack) for name, attack in ours(contest).items()}
    sparse = [_tf_peers.SPARSE] if "Foolbox" in peers else []
    for peer in peers + sparse:
        made[peer] = _tf_peers.make(peer, model, contest)
    for peer in beside.names if beside is not None else ():
        made[peer] = beside.make(peer, contest)
    return {
        name: attack if name.startswith(OURS) else theirs(attack)
        for name, attack in made.items()
        if attack is not None
    }


def _run(model, contenders, x, y, contest, seed, failed) -> list[dict]:
    """Every contender on every batch; a row each."""
    batches = [slice(i, i + contest.batch) for i in range(0, contest.images, contest.batch)]

    def fail(name, error):
        if name.startswith(OURS):
            raise error
        # A peer's failure is a result too.
        failed[f"{name}, {contest.name} {contest.norm}"] = f"{type(error).__name__}: {error}"
        del contenders[name]

    for name in list(contenders):
        try:
            contenders[name](x[batches[0]], y[batches[0]], 0)  # Traces and compiles.
        except Exception as error:
            fail(name, error)
    order = random.Random(seed)
    found = {name: [] for name in contenders}
    for number, rows in enumerate(batches):
        for name in order.sample(list(contenders), len(contenders)):
            clock = _common.Clock()
            try:
                got = contenders[name](x[rows], y[rows], number)
            except Exception as error:
                fail(name, error)
                continue
            x_adv, spent = got if isinstance(got, tuple) else (got, clock.read())
            # One judge for everybody.
            found[name].append((x_adv, _margins(model, x_adv, y[rows]) <= 0, spent))
    count = contest.images
    right = _margins(model, x[:count], y[:count]) > 0
    return [{"name": name, **_row(found[name], x[:count], right, contest)} for name in contenders]


def _row(parts, x, right, contest) -> dict:
    """What one contender reached, from its batches of (x_adv, fooled, seconds)."""
    import numpy as np

    x_adv, fooled = (np.concatenate([part[i] for part in parts]) for i in range(2))
    row = {
        "images": len(x),
        "beyond_bounds": max(float(-x_adv.min()), float(x_adv.max()) - 1.0, 0.0),
        "cpu_ms": round(1e3 * statistics.median(p[2][0] / len(p[1]) for p in parts), 4),
        "cpu_s": round(sum(part[2][0] for part in parts), 3),
        "wall_s": round(sum(part[2][1] for part in parts), 3),
    }
    still = right & ~fooled
    if not contest.norm:
        robust = round(100 * float(still.mean()), 2)
        return row | {"robust_accuracy": robust, "robust_accuracy_inside": robust}
    away = _size(x_adv.astype("float64") - x, contest.norm)
    if contest.smallest:
        # Not found counts as infinitely far; what is wrong already has no distance.
        away = np.where(fooled, away, np.inf)[right]
        middle = float(np.median(away))
        return row | {
            "found": round(100 * float(np.mean(np.isfinite(away))), 1),
            "median": round(middle, 5) if np.isfinite(middle) else None,
        }
    outside = away - contest.eps
    left = outside > TOLERANCE[contest.norm]
    return row | {
        "robust_accuracy": round(100 * float(still.mean()), 2),
        "robust_accuracy_inside": round(100 * float((still | right & left).mean()), 2),
        "outside_ball": int(left.sum()),
        "largest_excess": max(float(outside.max()), 0.0),
    }


def _size(delta, norm):
    import numpy as np

    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    return np.linalg.norm(delta.reshape(len(delta), -1), ord=order, axis=1)


def _margins(model, x, y):
    """The label's logit minus the largest other one, `(n,)`; ties a rounding error wide are 0."""
    import numpy as np

    logits = model(x, training=False).numpy().astype("float64")
    own = np.take_along_axis(logits, y[:, None], axis=1)[:, 0]
    logits[np.arange(len(y)), y] = -np.inf
    margin = own - logits.max(axis=1)
    # Examples on the boundary itself fall on either side with the size of the batch.
    return np.where(np.abs(margin) < 1e-5 * np.abs(own), 0.0, margin)


if __name__ == "__main__":
    main()
