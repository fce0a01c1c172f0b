import dataclasses

import pytest

from keras_robust.attacks import FAB, FGSM, PGD, AutoAttack, DeepFool, Noise, Spatial, Square
from keras_robust.evaluation._columns import check_attacks, check_black_box, make_columns

pytestmark = pytest.mark.once


@dataclasses.dataclass(frozen=True)
class Stub:
    """An attack in name only."""

    searches: bool = False
    name: str = "stub"

    eps = None
    norm = "l2"

    def __call__(self, model, x, y, seed=0):
        return x


@dataclasses.dataclass(frozen=True)
class WithEps(Stub):
    """The same with a radius."""

    name: str = "with eps"
    eps: float = 0.0


def test_default_is_pgd_20_and_autoattack_at_8_255():
    assert list(check_attacks(None).values()) == [PGD(8 / 255), AutoAttack(8 / 255)]


def test_a_suite_is_taken_apart_and_other_attacks_are_one_stage():
    suite, single = make_columns({"a": AutoAttack(0.1), "b": FGSM(0.1)}, classes=10)
    assert [stage.label for stage in suite.stages] == [
        f"a/{name}" for name in AutoAttack(0.1).stages(10)
    ]
    assert [stage.needs_gradient for stage in suite.stages] == [True, True, True, False]
    assert [(stage.label, stage.attack) for stage in single.stages] == [("b", FGSM(0.1))]


def test_kinds():
    attacks = {"ball": FAB(0.1), "search": FAB(), "noise": Stub(), "other": Stub(searches=True)}
    attacks |= {"Noise": Noise(0.1), "Spatial": Spatial(), "DeepFool": DeepFool()}
    assert [column.kind for column in make_columns(attacks, 3)] == [
        "ball",
        "search",
        "control",
        "search",
        "control",
        "control",
        "search",
    ]


def test_black_box_attacks_are_those_that_are_missing():
    from keras_robust.attacks import HopSkipJump

    found = check_black_box(True, {"a": FGSM(0.3, norm="l2", bounds=(0.0, 2.0))})
    square, jump = found.values()
    assert isinstance(square, Square) and isinstance(jump, HopSkipJump)
    for attack in (square, jump):
        assert (attack.eps, attack.norm, attack.bounds) == (0.3, "l2", (0.0, 2.0))
    # AutoAttack has Square among its stages; HopSkipJump does not do l1; a search has no ball.
    only = check_black_box(True, {"a": AutoAttack(0.3)})
    assert [type(attack) for attack in only.values()] == [HopSkipJump]
    assert [type(a) for a in check_black_box(True, {"a": PGD(1.0, norm="l1")}).values()] == [Square]
    assert check_black_box(True, {"a": FAB()}) == {}
    assert check_black_box(False, {"a": FGSM(0.3)}) == {}
    assert check_black_box([Square(0.2)], {}) == {"Square-5000": Square(0.2)}


@pytest.mark.parametrize(
    "black_box, error, message",
    [
        ("yes", TypeError, "`black_box` must be True, False, or a list of attacks"),
        ([Square], TypeError, r"`black_box\[0\]` must be an attack.*the class Square"),
        ([PGD(0.1)], ValueError, "takes attacks without gradients and with a radius"),
        ({"a": Square(0.1)}, ValueError, "`black_box` and `attacks` both hold .* 'a'"),
    ],
)
def test_wrong_black_box_is_refused(black_box, error, message):
    with pytest.raises(error, match=message):
        check_black_box(black_box, {"a": FGSM(0.1)})


def test_eps_that_is_no_radius_is_refused():
    with pytest.raises(ValueError, match=r"finite eps >= 0, or None, got eps=-1"):
        check_attacks([WithEps(eps=-1)])
