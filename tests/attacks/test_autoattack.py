"""AutoAttack: the authors' budgets, and each attack on what the ones before left."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_robust import losses
from keras_robust.attacks import APGD, FAB, FGSM, AutoAttack, Square

pytestmark = pytest.mark.once


class Short(AutoAttack):
    """The same stages, a few steps each."""

    def stages(self, classes):
        return {
            name: dataclasses.replace(stage, **short(stage))
            for name, stage in super().stages(classes).items()
        }


def short(stage):
    return {"queries": 40} if isinstance(stage, Square) else {"steps": 5}


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_standard_budgets(norm):
    threat = {"eps": 0.1, "norm": norm, "bounds": (-1.0, 1.0)}
    assert AutoAttack(**threat).stages(10) == {
        "APGD-CE": APGD(**threat, loss="ce", steps=100, restarts=1),
        "APGD-T": APGD(**threat, loss="dlr", steps=100, restarts=1, targets=9),
        "FAB-T": FAB(**threat, steps=100, restarts=1, targets=9),
        "Square": Square(**threat, queries=5000, restarts=1),
    }


def test_l1_and_rand_budgets():
    threat = {"eps": 8.0, "norm": "l1"}
    stages = AutoAttack(**threat).stages(1000)
    assert stages["APGD-CE"] == APGD(**threat, loss="ce", steps=100, restarts=5)
    assert stages["APGD-T"] == APGD(**threat, loss="dlr", steps=100, targets=5)
    assert stages["FAB-T"] == FAB(**threat, steps=100, targets=9)
    assert AutoAttack(0.1, version="rand").stages(10) == {
        "APGD-CE": APGD(0.1, loss="ce", eot=20),
        "APGD-DLR": APGD(0.1, loss="dlr", eot=20),
    }


def test_few_classes_take_the_losses_that_work():
    assert AutoAttack(0.1).stages(6)["APGD-T"] == APGD(0.1, loss="dlr", targets=5)
    assert AutoAttack(0.1).stages(3)["APGD-T"] == APGD(0.1, loss="margin", targets=2)
    assert AutoAttack(0.1).stages(2)["FAB-T"].targets == 1
    rand = AutoAttack(0.1, version="rand")
    assert rand.stages(3)["APGD-DLR"].loss == "dlr"
    assert rand.stages(2)["APGD-MARGIN"].loss == "margin"


@pytest.mark.parametrize(("norm", "classes"), [("linf", 5), ("l2", 3), ("l1", 2)])
def test_finds_what_can_be_found_on_a_linear_model(linear, rng, norm, classes):
    model = linear(20, classes, seed=1)
    x = rng.uniform(size=(30, 20)).astype("float32")
    y = np.argmax(model(x), axis=1)

    def worst_margin(eps):
        # One step along the margin is exact for two classes, and nearly so for more.
        x_adv = FGSM(eps, norm=norm, loss="margin")(model, x, y)
        return losses.margin(y, model(x_adv)).numpy()

    eps = next(eps for eps in np.geomspace(0.01, 20, 30) if np.mean(worst_margin(eps) > 0) > 0.3)
    worst = worst_margin(eps)
    assert np.mean(worst > 0) < 0.9, "the case must be neither easy nor hopeless"
    x_adv = Short(eps, norm=norm)(model, x, y).numpy()
    reached = losses.margin(y, model(x_adv)).numpy()
    assert np.all(reached[worst > 0.02] > 0)
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    assert np.linalg.norm(np.float64(x_adv) - x, order, axis=1).max() <= eps + 1e-6
    assert x_adv.min() >= 0 and x_adv.max() <= 1


def test_each_stage_sees_only_the_rows_still_standing(linear, rng):
    """Stages that break the rows they are told to, and write down how many they were given."""
    seen, model = [], linear(4, classes=2)

    @dataclasses.dataclass(frozen=True)
    class Breaks(FGSM):
        label: int = 0

        def run(self, model, x, y, seed, eps):
            tf.numpy_function(lambda x: seen.append(len(x)) or np.int32(0), [x], tf.int32)
            mine = tf.cast(tf.round(x[:, :1] * 10), tf.int32) == self.label
            return tf.where(mine, 1.0, x - 1e-3)

    class Staged(AutoAttack):
        def stages(self, classes):
            return {str(i): Breaks(1.0, label=i % 4) for i in (3, 1, 2, 7, 11)}

    def by_all_ones(x):
        hit = tf.cast(tf.reduce_all(x > 0.999, axis=1, keepdims=True), tf.float32)
        return tf.concat([2 - 6 * hit, hit], axis=1) + 0.0 * model(x)

    x = np.repeat([[0.1], [0.2], [0.2], [0.3], [0.3], [0.3]], 4, axis=1).astype("float32")
    y = np.zeros(6, int)
    x_adv = Staged(1.0)(by_all_ones, x, y).numpy()
    assert seen == [6, 3, 2], "the last two stages have nothing left to do"
    np.testing.assert_array_equal(x_adv, np.ones_like(x))
    seen.clear()
    y[0] = 1
    np.testing.assert_allclose(Staged(1.0)(by_all_ones, x, y)[0], x[0] - 1e-3)
    assert seen == [6, 2, 2], "a row that is wrong when clean falls to the first"


def test_what_stands_keeps_the_first_stages_example(linear, rng):
    model = linear(20, 4)
    x = rng.uniform(size=(20, 20)).astype("float32")
    y = np.argmax(model(x), axis=1)
    x_adv = Short(0.02)(model, x, y)
    stands = np.argmax(model(x_adv), axis=1) == y
    clean, attacked = (losses.cross_entropy(y, model(z)).numpy() for z in (x, x_adv))
    assert stands.any() and np.all(attacked[stands] > clean[stands])


def test_repeats_with_its_seed_and_leaves_zero_eps_alone(linear, rng):
    model, x = linear(12, 4), rng.uniform(size=(6, 12)).astype("float32")
    y = np.argmax(model(x), axis=1)
    attack = Short(0.03)
    np.testing.assert_array_equal(attack(model, x, y, seed=5), attack(model, x, y, seed=5))
    np.testing.assert_array_equal(dataclasses.replace(attack, eps=0.0)(model, x, y), x)


def test_rand_takes_the_vote_of_many_calls(linear, rng):
    model, generator = linear(12, 3), tf.random.Generator.from_seed(0)

    def noisy(x):
        return model(x + 0.02 * generator.normal(tf.shape(x)))

    x = rng.uniform(size=(16, 12)).astype("float32")
    y = np.argmax(model(x), axis=1)
    x_adv = Short(0.15, version="rand")(noisy, x, y)
    wrong = np.mean([np.argmax(noisy(x_adv), axis=1) != y for _ in range(50)], axis=0)
    worst = losses.margin(y, model(FGSM(0.15, loss="margin")(model, x, y))).numpy()
    assert np.all(wrong[worst > 0.3] > 0.5) and np.any(worst > 0.3)


def test_names_and_wrong_settings():
    assert AutoAttack(0.1).name == "AutoAttack"
    assert AutoAttack(0.1, norm="l2", version="rand").name == "AutoAttack l2 rand"
    with pytest.raises(ValueError, match="`version` must be one of 'standard', 'rand', got"):
        AutoAttack(0.1, version="plus")
