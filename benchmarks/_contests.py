"""What the attack benchmark compares: attacks, threat models, budgets and images."""

import dataclasses

EPS = {"linf": 0.1, "l2": 1.0, "l1": 10.0}
NATURAL, ROBUST = "natural", "adversarially trained"
OURS = "keras_robust"


@dataclasses.dataclass(frozen=True)
class Contest:
    """One attack with one budget, for everybody who has it.

    Attributes:
        kind: what the peers' adapters know it by.
        name: what the table calls it.
        norm: "linf", "l2" or "l1"; "" where no norm has a part in it.
        eps: radius; None for the smallest perturbation, or for no ball at all.
        budget: what the adapters and ours need beside that.
        images, batch: how many, and how many at once.
        models: which of the two networks.
    """

    kind: str
    name: str
    norm: str
    eps: float | None
    budget: dict = dataclasses.field(default_factory=dict)
    images: int = 500
    batch: int = 125
    models: tuple[str, ...] = (NATURAL, ROBUST)

    @property
    def smallest(self) -> bool:
        """Whether the attack is judged by the size of what it finds."""
        return self.eps is None and bool(self.norm)


def contests(quick: bool = False, only=None) -> list[Contest]:
    """All of them, or tiny ones of each kind; `only` keeps these kinds."""
    made = [*_first_order(2 if quick else 20), *_parameter_free(), *_searches(), *_nearest()]
    if quick:
        made = [_tiny(contest) for contest in made if contest.norm != "l2" or contest.smallest]
    return [contest for contest in made if not only or contest.kind in only]


def _first_order(steps):
    for norm, eps in EPS.items():
        pgd = {"steps": steps, "step_size": 2.5 * eps / steps}
        yield Contest("fgsm", "FGSM", norm, eps)
        yield Contest("pgd", f"PGD-{steps}", norm, eps, {**pgd, "restarts": 1})
        yield Contest("pgd", f"PGD-{steps} x3", norm, eps, {**pgd, "restarts": 3})
    eps = EPS["linf"]
    yield Contest("mifgsm", f"MI-FGSM-{steps}", "linf", eps, {"steps": steps})


def _parameter_free():
    some = {"images": 200, "batch": 50, "models": (ROBUST,)}
    for norm, eps in EPS.items():
        for loss in ("ce", "dlr") if norm == "linf" else ("ce",):
            budget = {"loss": loss, "steps": 100}
            yield Contest("apgd", f"APGD-{loss.upper()}", norm, eps, budget, **some)
    for norm, eps in EPS.items():
        targets = 5 if norm == "l1" else 9
        budget = {"targets": targets, "steps": 100}
        yield Contest("apgd-t", f"APGD-T {targets}", norm, eps, budget, **some)
    few = {**some, "images": 100, "batch": 25}
    for norm in ("linf", "l2"):
        yield Contest("fab-t", "FAB-T 9", norm, EPS[norm], {"targets": 9, "steps": 100}, **few)
    yield Contest("autoattack", "AutoAttack", "linf", EPS["linf"], **{**few, "batch": 50})


def _searches():
    few = {"images": 100, "batch": 25, "models": (ROBUST,)}
    for norm in ("linf", "l2"):
        yield Contest("square", "Square 1000", norm, EPS[norm], {"queries": 1000}, **few)
    budget = {"shift": 3, "angle": 30, "shifts": 5, "angles": 5}
    yield Contest("spatial", "Spatial 5x5x5", "", None, budget, images=200, batch=50)


def _nearest():
    few = {"images": 100, "batch": 25}
    for norm in ("l2", "linf"):
        budget = {"steps": 50, "candidates": 10, "overshoot": 0.02}
        yield Contest("deepfool", "DeepFool", norm, None, budget, **few)
    for norm, eps in EPS.items():
        budget = {"targets": 9, "steps": 20, "radius": eps}
        yield Contest("fab-t", "FAB-T 9, 20 steps", norm, None, budget, **few)
    search = {"steps": 100, "search_steps": 6, "rate": 0.01, "start": 0.01}
    # ART takes minutes for these.
    yield Contest("cw", "Carlini-Wagner 6x100", "l2", None, search, images=20, batch=20)
    yield Contest(
        "ead", "ElasticNet 6x100", "l1", None, {**search, "beta": 0.01}, images=10, batch=10
    )
    budget = {"steps": 10, "most": 1000}
    yield Contest("hsj", "HopSkipJump 10", "l2", None, budget, images=20, batch=5)


_TINY = {"queries": 20, "search_steps": 2, "targets": 2, "shifts": 2, "angles": 2}


def _tiny(contest) -> Contest:
    budget = {**contest.budget, **{k: v for k, v in _TINY.items() if k in contest.budget}}
    if "steps" in budget and contest.kind not in ("pgd", "mifgsm", "deepfool"):
        budget["steps"] = 3
    slow = contest.smallest or contest.kind == "autoattack"
    size = {"images": 8, "batch": 4} if slow else {"images": 32, "batch": 16}
    return dataclasses.replace(contest, budget=budget, **size)


def ours(contest: Contest) -> dict:
    """Name -> our attack for it, with a variant where that explains something."""
    import keras_robust as kr

    made, norm, budget = kr.attacks, {"norm": contest.norm}, dict(contest.budget)
    ball = {"eps": contest.eps, **norm}
    steps = budget.get("steps")
    if contest.kind == "fgsm":
        return {OURS: made.FGSM(**ball)}
    if contest.kind == "pgd":
        return {
            OURS: made.PGD(**ball, **budget),
            f"{OURS}, keep_best=False": made.PGD(**ball, **budget, keep_best=False),
        }
    if contest.kind == "mifgsm":
        return {OURS: made.MIFGSM(**ball, steps=steps)}
    if contest.kind in ("apgd", "apgd-t"):
        return {OURS: made.APGD(**ball, **budget)}
    if contest.kind == "fab-t":
        return {OURS: made.FAB(**ball, steps=steps, targets=budget["targets"])}
    if contest.kind == "autoattack":
        return {OURS: made.AutoAttack(**ball)}
    if contest.kind == "square":
        return {OURS: made.Square(**ball, **budget)}
    return {OURS: _our_search(contest)}


def _our_search(contest):
    import keras_robust as kr

    made, norm, budget = kr.attacks, {"norm": contest.norm}, contest.budget
    if contest.kind == "deepfool":
        return made.DeepFool(**norm, **budget)
    if contest.kind == "cw":
        return made.CarliniWagner(
            steps=budget["steps"],
            search_steps=budget["search_steps"],
            learning_rate=budget["rate"],
            initial_const=budget["start"],
        )
    if contest.kind == "ead":
        return made.ElasticNet(
            beta=budget["beta"],
            rule="l1",
            steps=budget["steps"],
            search_steps=budget["search_steps"],
            learning_rate=budget["rate"],
            initial_const=budget["start"],
        )
    if contest.kind == "hsj":
        return made.HopSkipJump(**norm, steps=budget["steps"])
    return made.Spatial(
        degrees=budget["angle"],
        pixels=budget["shift"],
        angles=budget["angles"],
        shifts=budget["shifts"],
    )
