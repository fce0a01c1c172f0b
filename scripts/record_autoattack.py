"""Records what the reference implementation of AutoAttack finds, image by image.

    python -m venv .venv-torch
    .venv-torch/bin/pip install "torch==2.13.0" numpy
    git clone https://github.com/fra31/auto-attack && git -C auto-attack checkout a392200
    pip download advertorch==0.2.3 --no-deps --no-binary :all:
    .venv-torch/bin/python scripts/record_autoattack.py auto-attack \
        --advertorch advertorch-0.2.3.tar.gz --mnist mnist.npz

Runs the standard version with its own budgets on one thread for every case of `CASES` (hours;
name cases to do only those) and adds each to tests/reference/data/autoattack.json: the images
still right after every stage, as hexadecimal bits, and the CPU seconds it took. The nets are
those of tests/reference/data/autoattack_nets.npz and advertorch's LeNet5, which is not kept
here; its images are the first of MNIST's test set. `tests/reference/test_autoattack.py`
compares ours with the record.
"""

import argparse
import json
import os
import pathlib
import sys
import time

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks"))
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests" / "reference"))
import advertorch_lenet5
import reference_nets
from _torch_twin import TorchTwin

ROOT = pathlib.Path(__file__).parents[1]
RECORD = ROOT / "tests" / "reference" / "data" / "autoattack.json"
EMBEDDED = ROOT / "keras_robust" / "data" / "fashion_mnist_subset.npz"
IMAGES, BATCH, SEED = 1000, 250, 0
STAGES = ("apgd-ce", "apgd-t", "fab-t", "square")
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
# (net, norm, eps)
CASES = [
    ("robust", "linf", 0.1),
    ("masked", "linf", 0.1),
    ("natural", "linf", 0.03),
    ("robust", "l2", 1.5),
    ("robust", "l1", 6.0),
    ("natural", "l2", 0.5),
    ("natural", "l1", 4.0),
    ("advertorch", "linf", 0.3),
]


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("reference", type=pathlib.Path, help="checkout of fra31/auto-attack")
    parser.add_argument("cases", nargs="*", help="such as robust-linf; default all")
    parser.add_argument("--advertorch", type=pathlib.Path, help="the sdist of advertorch 0.2.3")
    parser.add_argument("--mnist", type=pathlib.Path, help="mnist.npz, for advertorch's net")
    parser.add_argument("--images", type=int, default=IMAGES)
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(options.reference))
    torch.set_num_threads(1)
    for net, norm, eps in CASES:
        if options.cases and f"{net}-{norm}" not in options.cases:
            continue
        if net == "advertorch" and not (options.advertorch and options.mnist):
            print("advertorch left out: it needs --advertorch and --mnist")
            continue
        model, x, y = inputs(net, options)
        keep(f"{net}-{norm}", {"net": net, "norm": norm, "eps": eps, **run(model, x, y, norm, eps)})


def inputs(net, options):
    """The torch model, and images `(n, channels, h, w)` in [0, 1] with their labels."""
    source = options.mnist if net == "advertorch" else EMBEDDED
    with np.load(source) as data:
        x, y = data["x_test"][: options.images], data["y_test"][: options.images]
    x = x.reshape(len(x), 1, 28, 28).astype(np.float32) / np.float32(255)
    if net == "advertorch":
        model = TorchTwin(*advertorch_lenet5.net(options.advertorch))
    else:
        model = TorchTwin(*reference_nets.load(net))
    return model.eval(), torch.tensor(x), torch.tensor(y.astype(np.int64))


def run(model, x, y, norm, eps) -> dict:
    """The standard version stage by stage, each on the images that the ones before left."""
    from autoattack import AutoAttack

    attack = AutoAttack(model, norm=NORMS[norm], eps=eps, seed=SEED, device="cpu", verbose=False)
    right = is_right(model, x, y)
    case = {"images": len(x), "batch": BATCH, "seed": SEED, "torch": torch.__version__}
    case |= {"clean": bits(right), "stages": {}}
    for stage in STAGES:
        attack.attacks_to_run = [stage]
        left = right.nonzero().squeeze(1)
        start = time.process_time()
        if len(left):
            x_adv = attack.run_standard_evaluation(x[left], y[left], bs=BATCH)
            right[left] = is_right(model, x_adv, y[left])
        seconds = round(time.process_time() - start, 1)
        case["stages"][stage] = {"right": bits(right), "cpu_s": seconds}
        print(f"{norm} {eps} {stage}: {right.float().mean():.1%} in {seconds} CPU s", flush=True)
    return case


def is_right(model, x, y):
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in x.split(BATCH)]) == y


def bits(right) -> str:
    """A bool for each image as hexadecimal, eight images a byte."""
    return np.packbits(right.numpy()).tobytes().hex()


def keep(name: str, case: dict) -> None:
    """Adds one case to the record."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    record[name] = case
    beside = RECORD.with_suffix(f".{os.getpid()}.part")
    beside.write_text(json.dumps(dict(sorted(record.items())), indent=1) + "\n")
    os.replace(beside, RECORD)


if __name__ == "__main__":
    main()
