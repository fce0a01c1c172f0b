"""The attacks of an evaluation: checked, named, and taken apart into stages."""

import dataclasses
import math
import numbers

# What an attack counts for.
BALL, CONTROL, SEARCH = "ball", "control", "search"


@dataclasses.dataclass(frozen=True)
class Stage:
    """One attack that runs by itself.

    Attributes:
        label: the attack's name, or "suite/stage".
        attack: called as `attack(model, x, y, seed=0)`.
        needs_gradient: False when scores or decisions are enough for it.
    """

    label: str
    attack: object
    needs_gradient: bool


@dataclasses.dataclass(frozen=True)
class Column:
    """One attack as the user gave it.

    Attributes:
        name: key of the results.
        attack: as given.
        stages: run in turn; each sees only images that withstood those before it.
        kind: BALL for a radius, whose outcome counts in the worst case; SEARCH for the smallest
            perturbation, which gives distances; CONTROL for neither, such as noise.
        added: run on artifacts without gradients, on what all other attacks left standing.
    """

    name: str
    attack: object
    stages: tuple[Stage, ...]
    kind: str
    added: bool = False

    @property
    def norm(self) -> str:
        return str(self.attack.norm)

    @property
    def eps(self) -> float | None:
        return None if self.attack.eps is None else float(self.attack.eps)

    def facts(self) -> dict:
        """What the report says of it."""
        return {
            "name": self.name,
            "type": type(self.attack).__name__,
            "config": repr(self.attack),
            "eps": self.eps,
            "norm": self.norm,
            "kind": self.kind,
            "stages": [s.label for s in self.stages] if len(self.stages) > 1 else [],
            "added": self.added,
        }


def check_attacks(attacks) -> dict:
    """Name -> attack, in order; None gives PGD-20 and AutoAttack at 8/255 in linf.

    Raises:
        TypeError: not a list or dict, or something that is no attack.
        ValueError: none, two of one name, or a targeted one.
    """
    if attacks is None:
        from keras_robust.attacks import PGD, AutoAttack

        attacks = [PGD(8 / 255, steps=20), AutoAttack(8 / 255)]
    if not isinstance(attacks, (list, tuple, dict)):
        raise TypeError(
            "`attacks` must be a list of attacks or a dict name -> attack, got "
            f"{type(attacks).__name__}. For a single one give attacks=[attack]."
        )
    if not attacks:
        raise ValueError("`attacks` is empty. Give at least one, or None for the default ones.")
    return _named(attacks, "attacks")


def make_columns(attacks: dict, classes: int, added: bool = False) -> list[Column]:
    """Each attack with its stages for so many classes."""
    columns = []
    for name, attack in attacks.items():
        suite = attack.stages(classes) if hasattr(attack, "stages") else {}
        stages = tuple(_stage(f"{name}/{label}", part) for label, part in suite.items())
        stages = stages or (_stage(name, attack),)
        columns.append(Column(name, attack, stages, _kind(attack), added))
    return columns


def _kind(attack) -> str:
    if attack.eps is not None:
        return BALL
    # A radius that could be given and was not: the smallest perturbation is sought. An attack
    # that is not ours and says nothing is taken for one of these.
    optional = dataclasses.is_dataclass(attack) and any(
        field.name == "eps" for field in dataclasses.fields(attack)
    )
    return SEARCH if optional or getattr(attack, "searches", True) else CONTROL


def check_black_box(black_box, attacks: dict) -> dict:
    """Name -> attack for artifacts without gradients, beyond those that `attacks` holds.

    Args:
        black_box: True for Square and HopSkipJump in the ball of the last attack that has one, a
            list or dict of attacks without gradients, or False.
        attacks: checked.

    Raises:
        TypeError, ValueError: none of these, or an attack that needs gradients.
    """
    if black_box is True:
        return _default_black_box(attacks)
    if black_box is False or black_box is None:
        return {}
    if not isinstance(black_box, (list, tuple, dict)):
        raise TypeError(
            "`black_box` must be True, False, or a list of attacks such as "
            f"[kr.attacks.Square(eps=0.1)], got {black_box!r}."
        )
    named = _named(black_box, "black_box")
    for name, attack in named.items():
        if getattr(attack, "needs_gradient", True) or attack.eps is None:
            raise ValueError(
                f"`black_box` holds {name!r}, but takes attacks without gradients and with a "
                "radius, such as kr.attacks.Square(eps=0.1)."
            )
        if name in attacks:
            raise ValueError(
                f"`black_box` and `attacks` both hold an attack called {name!r}. Leave it out of "
                "one: those in `attacks` run on artifacts without gradients too."
            )
    return named


def _default_black_box(attacks) -> dict:
    from keras_robust.attacks import HopSkipJump, Square

    balls = [a for a in attacks.values() if a.eps is not None]
    if not balls:
        return {}
    ball = balls[-1]
    threat = {"eps": ball.eps, "norm": ball.norm, "bounds": getattr(ball, "bounds", (0.0, 1.0))}
    parts = [p for a in attacks.values() for p in (a, *_stage_attacks(a))]
    found = {}
    if threat["norm"] in ("linf", "l2", "l1") and not any(isinstance(p, Square) for p in parts):
        square = Square(**threat, queries=1000)
        found[square.name] = square
    # It does without scores, and knows these two norms.
    if threat["norm"] in ("linf", "l2") and not any(isinstance(p, HopSkipJump) for p in parts):
        jump = HopSkipJump(**threat, queries=1000)
        found[jump.name] = jump
    return {name: attack for name, attack in found.items() if name not in attacks}


def _stage_attacks(attack) -> list:
    # Which attacks a suite holds does not depend on the number of classes.
    return list(attack.stages(10).values()) if hasattr(attack, "stages") else []


def _stage(label, attack) -> Stage:
    return Stage(label, attack, getattr(attack, "needs_gradient", True))


def _named(attacks, argument) -> dict:
    pairs = list(attacks.items() if isinstance(attacks, dict) else enumerate(attacks))
    for key, attack in pairs:
        _check_attack(attack, f"{argument}[{key!r}]")
    named = {}
    for key, attack in pairs:
        name = key if isinstance(attacks, dict) else attack.name
        if not isinstance(name, str) or not name:
            raise TypeError(f"The names of `{argument}` must be non-empty strings, got {name!r}.")
        if name in named:
            raise ValueError(
                f"`{argument}` holds two attacks called {name!r}. Give a dict with a name for "
                f"each: {argument}={{{name + ' a'!r}: ..., {name + ' b'!r}: ...}}."
            )
        named[name] = attack
    return named


def _check_attack(attack, argument):
    missing = [part for part in ("name", "eps", "norm") if not hasattr(attack, part)]
    if not callable(attack) or isinstance(attack, type) or missing:
        what = f"the class {attack.__name__}" if isinstance(attack, type) else repr(attack)
        lacks = f" without {', '.join(missing)}" if missing else ""
        raise TypeError(
            f"`{argument}` must be an attack such as kr.attacks.PGD(eps=0.1), with name, eps and "
            f"norm, got {what}{lacks}."
        )
    if attack.eps is not None and not is_radius(attack.eps):
        raise ValueError(
            f"`{argument}` must have a finite eps >= 0, or None, got eps={attack.eps!r}."
        )
    if getattr(attack, "targeted", False):
        raise ValueError(
            f"`{argument}` is targeted, but robust accuracy counts every misclassification. "
            "Leave targeted=False."
        )


def is_radius(value) -> bool:
    """Whether `value` is a finite number >= 0."""
    good = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return good and math.isfinite(value) and value >= 0
