"""APGD: the authors' schedule step by step, exact on linear models, strong on others."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust import losses
from keras_robust.attacks import APGD, PGD, Ball, _apgd_climb, _apgd_l1
from keras_robust.attacks._attack import make_goal
from keras_robust.attacks._best import unseen
from keras_robust.attacks._targeted import likely_wrong, targeted_loss


class Net:
    """A network of one hidden layer, its cross-entropy and gradient also in numpy float64."""

    def __init__(self, inputs, classes=5, hidden=24, seed=0):
        generator = np.random.default_rng(seed)
        self.first = generator.normal(size=(inputs, hidden)).astype("float32")
        self.second = generator.normal(size=(hidden, classes)).astype("float32")

    def __call__(self, x):
        return tf.nn.relu(x @ self.first) @ self.second

    def cross_entropy(self, x, y):
        first, second = np.float64(self.first), np.float64(self.second)
        hidden = x @ first
        logits = np.maximum(hidden, 0) @ second
        logits -= logits.max(1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        slope = (np.exp(log_p) - np.eye(logits.shape[1])[y]) @ second.T * (hidden > 0) @ first.T
        return -log_p[np.arange(len(y)), y], slope


def iterates(run, model, x, y, start, loss=losses.log_odds):
    """All points that `run(goal, x, start)` looks at: eager loops run in Python."""
    goal, seen = make_goal(model, tf.constant(y, tf.int32), loss), []

    def recorded(x_adv):
        seen.append(x_adv.numpy())
        return goal(x_adv)

    run(recorded, tf.constant(x), tf.constant(start))
    return seen


def authors_apgd(model, x, y, start, norm, eps, steps, rho=0.75):
    """Algorithm 1 of the paper, row by row, on the cross-entropy; bounds out of reach for l2."""

    def project(point):
        if norm == "linf":
            return np.clip(np.clip(point, centre - eps, centre + eps), 0, 1)
        length = np.linalg.norm(point - centre)
        return centre + (point - centre) * min(1, eps / length)

    def direction(slope):
        return np.sign(slope) if norm == "linf" else slope / np.linalg.norm(slope)

    def climb(point):
        loss, slope = model.cross_entropy(point[None], y[row : row + 1])
        return loss[0], slope[0]

    # p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    checkpoints = [round(share * steps) for share in shares]
    rows = []
    for row, centre in enumerate(np.float64(x)):
        point = before = centre + np.float64(start[row])
        loss, slope = climb(point)
        top, top_loss, top_slope = point, loss, slope
        history, seen = [loss], [point]
        size, halved, old_top = 2 * eps, True, loss
        for step in range(1, steps + 1):
            new = project(point + size * direction(slope))
            if step > 1:
                new = project(point + 0.75 * (new - point) + 0.25 * (point - before))
            before, point = point, new
            loss, slope = climb(point)
            history.append(loss)
            seen.append(point)
            if loss > top_loss:
                top, top_loss, top_slope = point, loss, slope
            if step in checkpoints:
                last = checkpoints[checkpoints.index(step) - 1]
                rises = sum(history[i + 1] > history[i] for i in range(last, step))
                halved = rises <= rho * (step - last) or (not halved and old_top == top_loss)
                old_top = top_loss
                if halved:
                    size, point, slope = size / 2, top, top_slope
        rows.append(seen)
    return np.array(rows)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.25), ("l2", 0.35)])
def test_takes_the_steps_of_the_paper(rng, norm, eps):
    model, (low, high) = Net(12), (0.0, 1.0) if norm == "linf" else (0.4, 0.6)
    x = rng.uniform(low, high, size=(6, 12)).astype("float32")
    y = rng.integers(0, 5, size=6)
    start = np.sign(rng.normal(size=x.shape)) * (eps if norm == "linf" else 0.1)
    start = np.clip(x + start, 0, 1).astype("float32") - x

    def run(goal, x, start):
        ball = Ball(norm, eps)
        _apgd_climb.climb(goal, ball, x, start, unseen(start), 100, 0.75, early_stop=False)

    ours = np.stack(iterates(run, model, x, y, start), axis=1)
    theirs = authors_apgd(model, x, y, start, norm, eps, 100)
    assert ours.shape == theirs.shape == (6, 101, 12)
    # Near the maximum float32 sees other rises than float64.
    sure = 101 if norm == "linf" else 70
    np.testing.assert_allclose(ours[:, :sure], theirs[:, :sure], atol=2e-5)
    assert np.abs(ours[:, 1:] - ours[:, :-1]).max((0, 2))[-1] < 0.1 * eps, "steps must shrink"


@pytest.mark.once
def test_the_settings_are_those_of_the_steps(rng):
    """From wherever it starts."""
    model, x = Net(12), rng.uniform(size=(4, 12)).astype("float32")
    y = rng.integers(0, 5, size=4)

    def run(goal, x, start):
        attack = APGD(0.25, rho=0.3, early_stop=False)
        attack.perturb(goal, x, tf.constant([0, 0]), 0.25)

    ours = np.stack(iterates(run, model, x, y, x), axis=1)
    theirs, others = (
        authors_apgd(model, x, y, ours[:, 0] - x, "linf", 0.25, 100, rho) for rho in (0.3, 0.75)
    )
    # Beyond the first checkpoint, where the shares part.
    np.testing.assert_allclose(ours[:, :40], theirs[:, :40], atol=2e-5)
    assert np.abs(others[:, :40] - theirs[:, :40]).max() > 0.01


def test_a_checkpoint_halves_where_progress_stopped():
    """The four cases of the two conditions, and what a row that goes back takes along."""
    one = tf.ones(5)
    here = _apgd_climb.Point(one[:, None] * 2, one[:, None] * 3, one * 4)
    top = _apgd_climb.Point(one[:, None] * 5, one[:, None] * 6, one * 7)
    state = _apgd_climb._State(
        step=tf.constant(8),
        here=here,
        previous=one[:, None],
        top=top,
        best=unseen(one[:, None]),
        size=one,
        # Of 8 steps, 6 are just too few.
        rises=tf.constant([6.0, 7.0, 7.0, 7.0, 0.0]),
        old_top=tf.constant([1.0, 1.0, 7.0, 7.0, 7.0]),
        halved=tf.constant([False, False, False, True, True]),
    )
    after = _apgd_climb._check(state, tf.constant(8), 0.75)
    halved = np.array([True, False, True, False, True])
    np.testing.assert_array_equal(after.halved, halved)
    np.testing.assert_array_equal(after.size, np.where(halved, 0.5, 1))
    np.testing.assert_array_equal(after.here.delta[:, 0], np.where(halved, 5, 2))
    np.testing.assert_array_equal(after.here.gradient[:, 0], np.where(halved, 6, 3))
    np.testing.assert_array_equal(after.here.climb, here.climb)
    np.testing.assert_array_equal(after.old_top, top.climb)
    np.testing.assert_array_equal(after.rises, np.zeros(5))
    between = _apgd_climb._check(state, tf.constant(0), 0.75)
    tf.nest.map_structure(np.testing.assert_array_equal, between, state)


def test_sparse_steps_in_numpy(rng):
    """Croce and Hein 2021, algorithm 1: two thirds of the best point's entries, short steps.

    At the start of a long run all entries count, zero or not.
    """
    model, eps, steps = Net(12), 1.5, 40
    x = rng.uniform(size=(5, 12)).astype("float32")
    y = rng.integers(0, 5, size=5)
    ball = Ball("l1", eps)
    start = ball.project(tf.constant(rng.normal(size=x.shape), tf.float32), x).numpy()

    def run(goal, x, start):
        _apgd_l1._climb(goal, ball, x, start, unseen(start), steps, early_stop=False)

    ours = np.stack(iterates(run, model, x, y, start), axis=1)
    for row in range(5):
        delta, size, entries = start[row], 1.0, 12
        loss, slope = model.cross_entropy(np.float64(x[row] + delta)[None], y[row : row + 1])
        top = delta, loss, slope
        for step in range(1, steps + 1):
            place = int(np.clip(12 - np.float32(entries) / np.float32(1.5), 0, 11))
            large = np.abs(slope[0]) >= np.sort(np.abs(slope[0]))[place]
            moved = delta + size * eps * np.sign(slope[0]) * large / large.sum()
            delta = ball.project(tf.constant(moved[None], tf.float32), x[row : row + 1]).numpy()[0]
            loss, slope = model.cross_entropy(np.float64(x[row] + delta)[None], y[row : row + 1])
            np.testing.assert_allclose(ours[row, step], x[row] + delta, atol=1e-4)
            if loss > top[1]:
                top = delta, loss, slope
            # 4% of 40 steps: every step is a checkpoint.
            if np.count_nonzero(top[0]) < 0.95 * entries:
                size, (delta, _, slope) = 1.0, top
            else:
                size = max(size / 1.5, 0.1)
            entries = np.count_nonzero(top[0])


def test_l1_comes_from_larger_balls(linear, rng):
    model, x = linear(30, classes=3), rng.uniform(0.3, 0.7, size=(4, 30)).astype("float32")
    attack = APGD(0.5, norm="l1", steps=20, early_stop=False)

    def run(goal, x, start):
        attack.perturb(goal, x, tf.constant([0, 0]), 0.5)

    seen = np.stack(iterates(run, model, x, np.zeros(4, int), x))
    sizes = np.abs(seen - x).sum(2).max(1)
    # A start and then 6, 6 and 8 steps: 30%, 30% and 40%.
    assert [len(seen), sizes[:7].max() > 1.4, sizes[7:14].max() > 0.9] == [23, True, True]
    assert [sizes[:7].max() < 1.501, sizes[7:14].max() < 1.001, sizes[14:].max() < 0.501] == [
        True
    ] * 3


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.6), ("l1", 2.0)])
@pytest.mark.parametrize("settings", [{}, {"loss": "margin"}, {"loss": "dlr"}, {"targets": 4}])
def test_finds_all_there_is_on_a_linear_model(linear, rng, norm, eps, settings):
    """The worst margin over ball and bounds has a closed form for each wrong class."""
    model = linear(40, classes=5)
    x = rng.uniform(size=(24, 40)).astype("float32")
    y = np.argmax(model(x), axis=1)
    eps *= 0.4
    worst = np.full(24, -np.inf)
    for other in range(5):
        gap = model.weights[:, other] - model.weights[:, y].T
        corner = Ball(norm, eps).corner(tf.constant(gap), x)
        logits = np.array(model(x + corner))
        own = logits[np.arange(24), y]
        worst = np.maximum(worst, np.where(y == other, -np.inf, logits[:, other] - own))
    assert 0.2 < np.mean(worst > 0) < 0.8, "the case must be neither easy nor hopeless"
    x_adv = APGD(eps, norm=norm, early_stop=False, **settings)(model, x, y)
    reached = losses.margin(y, model(x_adv)).numpy()
    assert np.all(reached <= worst + 1e-4)
    sure = np.abs(worst) > 0.02
    np.testing.assert_array_equal(reached[sure] > 0, worst[sure] > 0)
    if settings == {"loss": "margin"} and norm != "l1":
        np.testing.assert_allclose(reached, worst, atol=0.02)


@pytest.mark.once
@hypothesis.settings(max_examples=10, deadline=None)
@hypothesis.given(
    norm=st.sampled_from(["linf", "l2", "l1"]),
    eps=st.one_of(st.just(0.0), st.floats(1e-3, 3.0)),
    bounds=st.sampled_from([(0.0, 1.0), (-3.0, 5.0)]),
    settings=st.sampled_from(
        [
            {"loss": "ce"},
            {"loss": "dlr", "eot": 2},
            {"loss": "ce", "targeted": True},
            {"targets": 2, "loss": "margin"},
            {"targets": 9},
            {"restarts": 2},
            {"early_stop": False},
        ]
    ),
    steps=st.sampled_from([1, 2, 7]),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    seed=st.integers(0, 2**50),
)
def test_stays_in_ball_and_bounds(linear, norm, eps, bounds, settings, steps, dtype, seed):
    generator = np.random.default_rng(seed)
    model = linear(12, classes=4, seed=seed % 1000)
    x = generator.uniform(*bounds, size=(4, 3, 4)).astype(dtype)
    y = generator.integers(0, 4, size=4)
    attack = APGD(eps, norm=norm, bounds=bounds, steps=steps, **settings)
    x_adv = attack(model, x, y, seed=seed)
    assert x_adv.dtype == tf.float32 and x_adv.shape == x.shape
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    x = x.astype("float32")
    delta = np.float64(x_adv.numpy()) - np.float64(x)
    assert np.linalg.norm(delta.reshape(4, -1), order, axis=1).max() <= eps + 1e-6
    assert x_adv.numpy().min() >= bounds[0] and x_adv.numpy().max() <= bounds[1]
    np.testing.assert_array_equal(attack(model, x, y, seed=seed), x_adv)
    if eps == 0:
        np.testing.assert_array_equal(x_adv, x)
    if "targeted" not in settings:
        clean, attacked = losses.margin(y, model(x)).numpy(), losses.margin(y, model(x_adv)).numpy()
        assert np.all((clean <= 1e-4) | (attacked > 0)), "never worse than the start"


@pytest.fixture(scope="module")
def trained(cnn, blobs):
    """A network that is right on clean blobs, and images it is attacked on."""
    model, (x, y) = cnn(), blobs()
    keras = kr._keras.keras
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(x, y, epochs=15, verbose=0, shuffle=False)
    return model, x, y


def fooled(model, x, y):
    return np.argmax(model(x), axis=1) != y


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.17), ("l2", 0.75), ("l1", 2.5)])
def test_is_at_least_as_strong_as_pgd(trained, norm, eps):
    model, x, y = trained
    pgd = fooled(model, PGD(eps, norm=norm, steps=100, restarts=2)(model, x, y), y)
    ours = {
        "ce": APGD(eps, norm=norm),
        "dlr": APGD(eps, norm=norm, loss="dlr"),
        "targets": APGD(eps, norm=norm, loss="margin", targets=9),
    }
    found = {name: fooled(model, attack(model, x, y), y) for name, attack in ours.items()}
    assert 0 < pgd.mean() < 1, "the case must be neither easy nor hopeless"
    assert np.mean(np.any(list(found.values()), axis=0)) >= pgd.mean()
    assert found["targets"].mean() >= pgd.mean() - 0.02


def test_an_early_end_and_restarts_lose_nothing(trained):
    model, x, y = trained
    full = APGD(0.17, steps=6, early_stop=False)
    ours = fooled(model, full(model, x, y, seed=2), y)
    early = dataclasses.replace(full, early_stop=True)
    np.testing.assert_array_equal(fooled(model, early(model, x, y, seed=2), y), ours)
    many = dataclasses.replace(early, restarts=4)
    more = fooled(model, many(model, x, y, seed=2), y)
    assert np.all(more | ~ours) and 0 < ours.mean() < 1


def test_restarts_start_elsewhere(trained):
    model, x, y = trained
    one, eight = APGD(0.17, steps=1), APGD(0.17, steps=1, restarts=8)
    found = [fooled(model, attack(model, x, y, seed=2), y) for attack in (one, eight)]
    assert found[1].sum() > found[0].sum()
    # And where training asks for them: the best of all, row by row.
    goal = make_goal(model, tf.constant(y), losses.margin)
    reached = [
        goal(attack.perturb(goal, tf.constant(x), tf.constant([0, 1]), 0.17)).climb.numpy()
        for attack in (one, eight)
    ]
    assert np.all(reached[1] >= reached[0] - 1e-6)
    assert np.mean(reached[1] > reached[0] + 1e-3) > 0.5


def test_every_target_gets_all_restarts(linear):
    """The likeliest wrong class cannot be reached, the second one near a corner alone."""
    x, y = np.full((2, 20), 0.5, "float32"), np.zeros(2, int)
    calls = []

    def model(x, most=1.5):
        tf.numpy_function(lambda: calls.append(1) or np.int32(0), [], tf.int32)
        rise = tf.reduce_sum(x - 0.5, axis=1)
        return tf.stack([1.0 + 0.0 * rise, 0.9 - 0.01 * rise, rise + most - 2.0], axis=1)

    def attacked(model, targets, restarts):
        calls.clear()
        attack = APGD(0.1, loss="margin", steps=3, targets=targets, restarts=restarts)
        return fooled(model, attack(model, x, y), y), len(calls)

    assert attacked(model, 2, 3)[0].all() and not attacked(model, 1, 3)[0].any()
    # Where all stands, each of the two classes has its three runs.
    asked = {
        runs: attacked(lambda x: model(x, most=-9.0), *runs)[1] for runs in [(1, 1), (2, 1), (2, 3)]
    }
    each = asked[2, 1] - asked[1, 1]
    assert each >= 3 and asked[2, 3] == asked[1, 1] + 5 * each


def test_later_runs_see_only_the_rows_still_standing(linear, rng):
    model, rows = linear(8, classes=4), []
    x = rng.uniform(size=(20, 8)).astype("float32")
    y = np.argmax(model(x), axis=1)

    def counted(x):
        tf.numpy_function(lambda x: rows.append(len(x)) or np.int32(0), [x], tf.int32)
        return model(x)

    x_adv = APGD(0.12, steps=4, targets=3)(counted, x, y)
    left = np.sum(~fooled(model, x_adv, y))
    assert 0 < left < 20 and rows[0] == 20
    assert rows[-1] < 20 and sorted(rows, reverse=True) == rows[:1] * rows.count(20) + [
        count for count in rows if count < 20
    ]


def test_targeted_reaches_its_target(trained):
    model, x, y = trained
    target = (y + 1) % 3
    x_adv = APGD(0.5, steps=20, targeted=True)(model, x, target)
    assert np.mean(np.argmax(model(x_adv), 1) == target) > 0.95


def test_targeted_losses_by_hand():
    logits = tf.constant([[4.0, 3.0, 1.0, 0.5, -2.0]])
    y, target = tf.constant([0]), tf.constant([2])
    dlr = targeted_loss(losses.dlr, target)(y, logits)
    # -(z_y - z_t) / (z_1 - (z_3 + z_4) / 2)
    np.testing.assert_allclose(dlr, [-(4 - 1) / (4 - (1 + 0.5) / 2)], rtol=1e-6)
    np.testing.assert_allclose(targeted_loss(losses.margin, target)(y, logits), [-3.0])
    ce = targeted_loss(losses.cross_entropy, target)(y, logits)
    np.testing.assert_allclose(ce, -losses.cross_entropy(target, logits))
    soft = tf.constant([[0.9, 0.1, 0, 0, 0]])
    np.testing.assert_allclose(targeted_loss(losses.dlr, target)(soft, logits), dlr)


def test_likely_wrong_classes_in_order(rng):
    logits, y = rng.normal(size=(30, 6)).astype("float32"), rng.integers(0, 6, size=30)
    for count in (2, 5, 9):
        expected = [
            [c for c in np.argsort(-row) if c != label][:count] for row, label in zip(logits, y)
        ]
        found = likely_wrong(tf.constant(logits), tf.constant(y, tf.int32), count)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.2), ("l1", 2.0)])
def test_compiled_by_xla_is_as_strong(trained, norm, eps):
    model, x, y = trained
    attack = APGD(eps, norm=norm, steps=20)
    compiled = tf.function(lambda x, y: attack(model, x, y), jit_compile=True)
    eager = fooled(model, attack(model, x, y), y).mean()
    assert abs(fooled(model, compiled(tf.constant(x), tf.constant(y)), y).mean() - eager) < 0.05


def test_trains(cnn, blobs):
    x, y = blobs()
    clean = np.mean(losses.cross_entropy(y, cnn()(x)))
    trainer = kr.AdversarialTraining(cnn(), APGD(0.1, steps=4, targets=2, loss="margin"))
    trainer.compile("adam", jit_compile=True)
    first, last = trainer.fit(x, y, epochs=2, batch_size=32, verbose=0).history["loss"]
    # What it trains on is harder than the images as they are.
    assert last < first and first > clean + 0.05


def test_one_trace_serves_all_radii_and_batch_sizes(linear, rng):
    model, traces = linear(6), []

    def counted(x):
        traces.append(x.shape)
        return model(x)

    for rows in (4, 7, 3, 5):
        x = rng.uniform(size=(rows, 6)).astype("float32")
        APGD(0.1 * rows, steps=3, restarts=2)(counted, x, np.zeros(rows, int))
    graph = [shape for shape in traces if shape[0] is None or shape[0] != 4]
    assert len(traces) <= 16, graph


def test_no_gradient_leaves_a_finite_result(rng):
    x = rng.uniform(size=(3, 5)).astype("float32")

    def saturated(x):
        return tf.stop_gradient(x[:, :3] * 5) + 0.0 * x[:, :3]

    for norm in ("linf", "l2", "l1"):
        assert np.isfinite(APGD(0.1, norm=norm, steps=3)(saturated, x, [0, 1, 2])).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "`steps` must be an int >= 1"),
        ({"restarts": 0}, "`restarts` must be an int >= 1"),
        ({"targets": 0}, "`targets` must be an int >= 1"),
        ({"eot": 0}, "`eot` must be an int >= 1"),
        ({"rho": 1.0}, r"`rho` must be in \(0, 1\), got rho=1.0"),
        ({"loss": "mse"}, "`loss` must be one of"),
        ({"targets": 3, "targeted": True}, "targets=3 chooses the classes to reach"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        APGD(0.1, **settings)


def test_targeted_dlr_needs_four_classes(linear, rng):
    x = rng.uniform(size=(3, 6)).astype("float32")
    with pytest.raises(ValueError, match='The targeted "dlr" loss needs at least 4 classes, got 3'):
        APGD(0.1, targets=2)(linear(6, classes=3), x, [0, 1, 2])


def test_names_tell_settings_apart():
    names = [
        APGD(0.1).name,
        APGD(0.1, loss="dlr", norm="l2").name,
        APGD(0.1, targets=9).name,
        APGD(0.1, targets=9, loss="margin", steps=20).name,
        APGD(0.1, restarts=5, eot=20).name,
        APGD(0.1, loss=losses.cross_entropy, targeted=True).name,
    ]
    assert names == [
        "APGD-CE",
        "APGD-DLR l2",
        "APGD-T",
        "APGD-T 20 steps MARGIN",
        "APGD-CE x5 eot 20",
        "APGD-own targeted",
    ]
