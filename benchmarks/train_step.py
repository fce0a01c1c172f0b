"""The time of one step of `kr.AdversarialTraining`, beside its parts and the peers.

    python benchmarks/train_step.py            # a few minutes; writes results/
    python benchmarks/train_step.py --table    # the table of what was written, runs nothing
    python benchmarks/train_step.py --only PGD-7 "same work"    # some groups; writes nothing

`TF_USE_LEGACY_KERAS=1` measures tf_keras, otherwise Keras 3. Primary number: CPU milliseconds
of a step of 128 images on one pinned core with one thread. The variants of a group alternate
in random order in every round; ratios are taken within a round, and their median given.
"""

import functools
import statistics
import sys

import _common
import tables

# What a step may take: of the sum of its parts, with attack passes in bfloat16 of that sum too,
# and with clustered kernels of the plain network's step.
LIMITS = {"fit": 1.03, "bfloat16": 0.62, "clustered": 1.10}
FIT = "AdversarialTraining, fit"
SUM = "sum of the parts: {0} gradients to x, one training step"
BY_HAND = "by hand, one tf.function"
HALF = f"{FIT}, attack_dtype bfloat16"
SAME_WORK = "same work"
SAME_IMAGES = "same images"
LARGE_BATCH = 16
CLUSTERED = f"{FIT}, 16 clusters, searched once a step"


def main(arguments=None) -> dict | None:
    options = _common.parser(__doc__.partition("\n")[0], "train_step")
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--steps", type=int, default=5, help="steps of each variant in a round")
    options.add_argument(
        "--only",
        nargs="+",
        metavar="GROUP",
        help="such as PGD-10, clustered, 'same work', 'same images'",
    )
    options.add_argument("--table", action="store_true", help="print the tables of results/")
    options = options.parse_args(arguments)
    if options.table:
        print(tables.train_step())
        return None
    if options.quick:
        options.rounds, options.steps = 1, 2
    # Attack steps of the main groups, and of the one that compares loops.
    options.attack_steps = (2, 3) if options.quick else (7, 20)
    _common.pin(options.core)
    result = measure(options)
    path = _common.result_path(options, "train_step") if not options.only else options.output
    if path is not None:
        _common.save(path, result)
    print(tables.render_train_step(result))
    return result


def measure(options) -> dict:
    """Runs all groups; the result as it is written."""
    import _peers
    import tensorflow as tf

    import keras_robust as kr
    from keras_robust._keras import LEGACY

    tf.random.set_seed(options.seed)
    loaded = kr.data.load(seed=options.seed)
    data = loaded.train
    batch = next(iter(data))
    peers, left_out = _peers.available(not options.no_peers)
    rows = []
    groups = list(_groups(data, batch, peers, options))
    groups += [] if options.quick else _large(options)
    # What everybody's examples make of a network does not depend on the Keras that runs.
    extra = [SAME_WORK] + [SAME_IMAGES] * (not LEGACY)
    chosen = _chosen([group for group, *_ in groups] + extra, options.only)
    for group, reference, make, images in groups:
        if group not in chosen:
            continue
        variants = make()
        print(f"group {group}: {len(variants)} variants", file=sys.stderr, flush=True)
        small = images == len(batch[1])
        rounds, steps = (options.rounds, options.steps) if small else (min(3, options.rounds), 1)
        found = _common.alternate(variants, rounds, steps, options.seed)
        for name in variants:
            row = {
                "group": group,
                "name": name,
                "batch": images,
                "cpu_ms": _common.spread([cpu for cpu, _ in found[name]]),
                "wall_ms": _common.spread([wall for _, wall in found[name]]),
                "ratio": _common.ratios(found, name, reference),
            }
            first, *later = getattr(variants[name], "once", [None])
            if later:
                row["trace_cpu_s"] = round(first, 2)
                row["once_cpu_ms"] = round(1e3 * statistics.median(later), 1)
            rows.append(row)
    return {
        "benchmark": "train_step",
        "environment": _common.environment(),
        "settings": {
            "model": "kr.zoo.small_cnn()",
            "batch": 128,
            "attack": "PGD linf, eps 0.1, random start, steps of 2.5 eps / steps",
            "optimizer": "Adam(1e-3)",
            "rounds": options.rounds,
            "steps": options.steps,
            "seed": options.seed,
            "quick": options.quick,
        },
        "targets": _targets(rows),
        "rows": rows,
        "same_work": same_work(data.take(20) if options.quick else data, batch, peers)
        if SAME_WORK in chosen
        else [],
        "same_images": _same_images(loaded, peers, options) if SAME_IMAGES in chosen else [],
        "left_out": left_out,
    }


def _chosen(groups, only) -> set[str]:
    """The groups named in `only`, in full or by their beginning; all without it."""
    if only is None:
        return set(groups)
    chosen = set()
    for word in only:
        found = [g for g in groups if g == word] or [g for g in groups if g.startswith(word)]
        if not found:
            raise SystemExit(f"--only {word}: no such group. There are: {'; '.join(groups)}.")
        chosen.update(found)
    return chosen


def _targets(rows) -> list[dict]:
    """Each limit where it was measured."""
    limits = {FIT: LIMITS["fit"], HALF: LIMITS["bfloat16"], CLUSTERED: LIMITS["clustered"]}
    found = []
    for row in rows:
        bare = row["group"].startswith(("PGD-", "ResNet-18", "clustered"))
        if bare and row["name"] in limits and not row["ratio"]["median"] == 1:
            limit = limits[row["name"]]
            met = row["ratio"]["median"] <= limit
            found.append(
                {k: row[k] for k in ("group", "name", "ratio")} | {"limit": limit, "met": met}
            )
    return found


def _large(options):
    """ResNet-18, batches of random images: what they show does not change the time."""
    for attack_steps in (options.attack_steps[0], options.attack_steps[0] + 3):
        make = functools.partial(_large_variants, attack_steps, options.seed)
        yield f"ResNet-18, PGD-{attack_steps}", SUM.format(attack_steps), make, LARGE_BATCH


def _large_variants(attack_steps, seed) -> dict:
    import _steps
    import numpy as np
    import tensorflow as tf

    x = np.random.default_rng(seed).random((2 * LARGE_BATCH, 32, 32, 3), np.float32)
    data = tf.data.Dataset.from_tensor_slices((x, np.arange(len(x)) % 10)).batch(LARGE_BATCH)
    parts = _steps.Parts(*next(iter(data)), make=_steps.resnet)
    found = {SUM.format(attack_steps): parts.madry(attack_steps)}
    for name, dtype in ((FIT, None), (HALF, "bfloat16")):
        trained = _steps.trainer(attack_steps, make=_steps.resnet, attack_dtype=dtype)
        found[name] = _steps.Fit(trained, data)
    return found


def _groups(data, batch, peers, options):
    """(group, name of the row that counts as 1, what makes its variants, size of a batch).

    Variants are name -> function of a number of steps.
    """
    for group, reference, variants in _small(data, batch, peers, options):
        yield group, reference, variants, len(batch[1])


def _small(data, batch, peers, options):
    """The groups on the demo's network."""
    import _steps

    import keras_robust as kr
    from keras_robust._keras import LEGACY

    fit, (few, many) = _steps.Fit, options.attack_steps

    def main_group():
        parts = _steps.Parts(*batch)
        loop = _steps.unrolled_fit(_steps.trainer(few), data, 0)
        return {
            SUM.format(few): parts.madry(few),
            "part: gradient to x": parts.gradient,
            "part: gradient to x, by blocks": parts.gradient_by_blocks,
            "part: training step": parts.train,
            "natural training, fit": fit(_steps.compiled(kr.zoo.small_cnn()), data),
            BY_HAND: _steps.plain_loop(*batch, few),
            FIT: fit(_steps.trainer(few), data),
            HALF: fit(_steps.trainer(few, attack_dtype="bfloat16"), data),
            "AdversarialTraining, its compiled step without fit": _steps.compiled_step(
                _steps.trainer(few), data
            ),
            "AdversarialTraining, fit, tf.while_loop for the attack": loop,
        } | _peer_variants(data, peers, options.steps)

    def more_steps():
        found = {SUM.format(ten): _steps.Parts(*batch).madry(ten)}
        return found | {FIT: fit(_steps.trainer(ten), data)}

    def clusters():
        return {
            plain: fit(_steps.trainer(few), data),
            CLUSTERED: fit(_steps.trainer(few, make=lambda: _steps.clustered(True)), data),
            f"{FIT}, 16 clusters, searched in each pass": fit(
                _steps.trainer(few, make=lambda: _steps.clustered(False)), data
            ),
        }

    def divergences():
        found = {trades: _steps.Parts(*batch).trades(few)}
        return found | {FIT: fit(_steps.trainer(few, kr.objectives.TRADES(beta=6.0)), data)}

    def loops():
        return {
            SUM.format(many): _steps.Parts(*batch).madry(many),
            f"{FIT}, unrolled": _steps.unrolled_fit(_steps.trainer(many), data, many),
            f"{FIT}, tf.while_loop for the attack": _steps.unrolled_fit(
                _steps.trainer(many), data, 0
            ),
        }

    def compiled():
        return {
            SUM.format(few): _steps.Parts(*batch, jit=True).madry(few),
            BY_HAND: _steps.plain_loop(*batch, few, jit=True),
            FIT: fit(_steps.trainer(few, jit=True), data),
            f"{FIT}, jit_compile=False": fit(_steps.trainer(few), data),
        }

    ten, plain = few + 3, f"{FIT}, plain"
    trades = f"sum of the parts: forward, {few} gradients to x, training step on both batches"
    yield f"PGD-{few}", SUM.format(few), main_group
    yield f"PGD-{ten}", SUM.format(ten), more_steps
    if LEGACY:
        yield f"clustered, PGD-{few}", plain, clusters
    yield f"TRADES, PGD-{few}", trades, divergences
    yield f"PGD-{many}", SUM.format(many), loops
    if not options.quick:  # Compiling takes longer than all else.
        yield f"PGD-{few}, jit_compile=True", SUM.format(few), compiled


def _peer_variants(data, peers, steps) -> dict:
    import _peers
    import _steps
    import tensorflow as tf

    from keras_robust.data import arrays

    x, y = arrays(data, limit=128 * max(steps, 2))

    def make():
        model, optimizer = _steps.model_and_optimizer()

        @tf.function(reduce_retracing=True)
        def step(x, y):
            _steps.update(
                model, optimizer, lambda: _steps.cross_entropy(y, model(x, training=True))
            )

        return model, optimizer, step

    variants = {}
    for peer in peers:
        variants |= _peers.training(peer, x, y, make, 7, _steps.EPS, _steps.step_size(7))
    return variants


def _same_images(data, peers, options) -> list[dict]:
    import _same_images

    print(f"group {SAME_IMAGES}", file=sys.stderr, flush=True)
    epochs, seeds = (1, [0]) if options.quick else (3, [0, 1])
    train = data.train.take(4) if options.quick else data.train
    return _same_images.same_images(train, data.test, peers, epochs, seeds)


def same_work(data, batch, peers) -> list[dict]:
    """Strength of everybody's PGD-7 on one briefly trained network: is it the same attack?"""
    import _steps
    import numpy as np
    import tensorflow as tf
    from _same_images import peer_pgd

    import keras_robust as kr

    model = _steps.compiled(kr.zoo.small_cnn())
    model.fit(data, shuffle=False, verbose=0)
    x, y = (tensor.numpy() for tensor in batch)
    generator = tf.random.Generator.from_seed(1)
    ours = kr.attacks.PGD(eps=_steps.EPS, steps=7)
    attacks = {
        "clean": lambda x, y: x,
        BY_HAND: lambda x, y: _steps.plain_examples(
            model, tf.constant(x), tf.constant(y), 7, generator
        ).numpy(),
        "keras_robust, in training": lambda x, y: ours.for_training()(model, x, y, 1).numpy(),
        "keras_robust, as an attack": lambda x, y: ours(model, x, y, 1).numpy(),
    }
    for peer in peers:
        attacks[peer] = peer_pgd(peer, model)
    rows = []
    for name, attack in attacks.items():
        x_adv = attack(x, y)
        loss = float(np.mean(_steps.cross_entropy(y, model(x_adv, training=False))))
        size = float(np.abs(x_adv.astype("float64") - x).max())
        rows.append({"name": name, "cross_entropy": round(loss, 4), "largest_change": size})
    return rows


if __name__ == "__main__":
    main()
