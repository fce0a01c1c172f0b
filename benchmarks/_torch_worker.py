"""The attacks of torchattacks and of AutoAttack's authors, asked for over a pipe.

Runs in an interpreter that has torch; `_torch_peers.py` starts it and speaks first: a line of
JSON a request, a line of JSON an answer, arrays in .npz files. Images travel channels last.

    {"model": file}                        a net as layers and arrays
    {"logits": in}                         -> its logits
    {"attack": {peer, kind, norm, ...}}    -> {"number": n}, or null where the peer has none
    {"run": n, "file": in, "out": out}     -> {"cpu": s, "wall": s}
"""

import json
import os
import sys
import time

import numpy as np
import torch
from _torch_twin import TorchTwin

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def main() -> None:
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What the peers print goes to stderr.
    worker = Worker()
    for line in sys.stdin:
        try:
            answer = {"answer": worker.do(json.loads(line))}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


class Worker:
    """The model under attack and the attacks made so far."""

    def __init__(self):
        self.attacks = []

    def do(self, request):
        if "model" in request:
            with np.load(request["model"]) as file:
                arrays = dict(file)
            layers = json.loads(str(arrays.pop("layers")))
            self.model, self.attacks = TorchTwin(layers, arrays).eval(), []
            return None
        if "logits" in request:
            with torch.no_grad():
                return self.model(_images(request["logits"])[0]).tolist()
        if "attack" in request:
            maker = {"torchattacks": _torchattacks, "AutoAttack's authors": _authors}
            made = maker[request["attack"].pop("peer")](self.model, **request["attack"])
            if made is None:
                return None
            self.attacks.append(made)
            return {"number": len(self.attacks) - 1}
        return self._run(self.attacks[request["run"]], request["file"], request["out"])

    def _run(self, attack, source, target):
        x, y = _images(source)
        cpu, wall = time.process_time(), time.perf_counter()
        x_adv = attack(x, y)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        x_adv = x_adv.detach().permute(0, 2, 3, 1).contiguous().numpy()
        np.savez(target, x_adv=x_adv)
        return {"cpu": cpu, "wall": wall}


def _images(path):
    with np.load(path) as file:
        x = torch.tensor(file["x"]).permute(0, 3, 1, 2).contiguous()
        return x, torch.tensor(file["y"].astype(np.int64))


def _torchattacks(model, kind, norm, eps, budget, classes):
    import torchattacks as ta

    ball = {"norm": NORMS.get(norm), "eps": eps}
    steps = budget.get("steps")
    if kind in ("apgd", "apgd-t", "square", "autoattack", "fab-t") and norm == "l1":
        return None
    if kind == "fgsm" and norm == "linf":
        return ta.FGSM(model, eps=eps)
    if kind == "pgd" and norm in ("linf", "l2") and budget["restarts"] == 1:
        made = {"linf": ta.PGD, "l2": ta.PGDL2}[norm]
        return made(model, eps=eps, alpha=budget["step_size"], steps=steps)
    if kind == "mifgsm":
        return ta.MIFGSM(model, eps=eps, alpha=eps / steps, steps=steps, decay=1.0)
    if kind == "apgd":
        return ta.APGD(model, **ball, steps=steps, loss=budget["loss"])
    if kind == "apgd-t":
        return ta.APGDT(model, **ball, steps=steps, n_classes=classes)
    if kind == "fab-t" and eps is not None:
        return ta.FAB(model, **ball, steps=steps, multi_targeted=True, n_classes=classes)
    if kind == "square":
        return ta.Square(model, **ball, n_queries=budget["queries"], resc_schedule=True)
    if kind == "autoattack":
        return ta.AutoAttack(model, **ball, n_classes=classes, seed=0)
    return _torchattacks_search(model, kind, norm, budget)


def _torchattacks_search(model, kind, norm, budget):
    import torchattacks as ta

    if kind == "deepfool" and norm == "l2":
        return ta.DeepFool(model, steps=budget["steps"], overshoot=budget["overshoot"])
    if kind == "cw":
        # It searches no constant: one run with its default.
        return ta.CW(model, c=1, steps=budget["steps"], lr=budget["rate"])
    if kind == "ead":
        return ta.EADL1(
            model,
            lr=budget["rate"],
            binary_search_steps=budget["search_steps"],
            max_iterations=budget["steps"],
            initial_const=budget["start"],
            beta=budget["beta"],
        )
    return None


def _authors(model, kind, norm, eps, budget, classes):
    from autoattack import AutoAttack, autopgd_base, fab_pt, square

    common = {"norm": NORMS.get(norm), "eps": eps, "seed": 0, "device": "cpu"}
    if kind == "apgd":
        made = autopgd_base.APGDAttack(
            model, n_iter=budget["steps"], loss=budget["loss"], use_largereps=norm == "l1", **common
        )
        return made.perturb
    if kind == "apgd-t":
        made = autopgd_base.APGDAttack_targeted(
            model,
            n_iter=budget["steps"],
            n_target_classes=budget["targets"],
            use_largereps=norm == "l1",
            **common,
        )
        return made.perturb
    if kind == "fab-t":
        # Without a radius every example counts, and all targets are tried for every image.
        common["eps"] = eps if eps is not None else budget["radius"]
        made = fab_pt.FABAttack_PT(
            model,
            n_iter=budget["steps"],
            targeted=True,
            n_target_classes=budget["targets"],
            **common,
        )
        return made.perturb if eps is not None else _nearest(made, norm)
    if kind == "square":
        return square.SquareAttack(model, n_queries=budget["queries"], **common).perturb
    if kind == "autoattack":
        made = AutoAttack(model, verbose=False, **common)
        return lambda x, y: made.run_standard_evaluation(x, y, bs=len(x))
    return None


def _nearest(made, norm):
    """The nearest example over all targets; its own `perturb` stops at a radius."""
    order = {"linf": float("inf"), "l2": 2, "l1": 1}[norm]

    def run(x, y):
        torch.manual_seed(0)
        best, distance = x.clone(), torch.full([len(x)], float("inf"))
        for target in range(2, made.n_target_classes + 2):
            made.target_class = target
            x_adv = made.attack_single_run(x, y, is_targeted=True)
            new = (x_adv - x).flatten(1).norm(p=order, dim=1)
            nearer = (made._get_predicted_label(x_adv) != y) & (new < distance)
            best[nearer], distance[nearer] = x_adv[nearer], new[nearer]
        return best

    return run


if __name__ == "__main__":
    main()
