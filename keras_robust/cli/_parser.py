"""The commands, their options and their help; imports nothing heavy, so `--help` is quick."""

import argparse
import pathlib

from keras_robust import __version__

_TRAIN = """examples:
  keras-robust train --out robust.keras
  keras-robust train --data photos/ --model resnet18 --eps 8/255 --epochs 30 --out robust.keras
  keras-robust train --eps 0.1 --epochs 20 --resume runs/1 --out robust.keras
  keras-robust train --workers 2 --resume runs/2 --out robust.keras

--batch-size is the global one, which all workers share. On a cluster run the same command on each
machine with TF_CONFIG set, and --out and --resume on a disk that all of them see.
"""
_EVALUATE = """examples:
  keras-robust evaluate robust.keras
  keras-robust evaluate float=robust.keras device=small/model.tflite --eps 0.1 --report report
  keras-robust evaluate served=serving/model/1 --attacks fgsm,pgd --images 500 --json
  keras-robust evaluate robust.keras live=http://localhost:8501/v1/models/m --journal run
"""
_COMPRESS = """examples:
  keras-robust compress --model robust.keras --data embedded --out small
  keras-robust compress --model photos.keras --data photos/ --prune 0.9 --cluster 32 --out small
"""
_EXPORT = """examples:
  keras-robust export --model robust.keras --data embedded --format int8 --out model.tflite
  keras-robust export --model photos.keras --data photos/ --format serving --out serving/model
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="keras-robust",
        description="Train Keras image classifiers that hold up under attack, shrink them, ship "
        "them, and prove it on the file that ships.",
        epilog="keras-robust COMMAND --help shows a command's options with examples.",
    )
    parser.add_argument("--version", action="version", version=f"keras-robust {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _demo(_command(commands, "demo", "the whole way on the embedded images, with a report", ""))
    _train(_command(commands, "train", "train a model against an attack", _TRAIN))
    _evaluate(_command(commands, "evaluate", "attack models and files, write a report", _EVALUATE))
    _compress(_command(commands, "compress", "prune, cluster and quantize a model", _COMPRESS))
    _export(_command(commands, "export", "write a .tflite file or a SavedModel", _EXPORT))
    return parser


def _command(commands, name, summary, examples):
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary.capitalize() + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default 0)")
    return parser


def _demo(parser):
    parser.add_argument(
        "--report", type=pathlib.Path, default=pathlib.Path("report"), help="folder"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer images and epochs, which proves nothing"
    )


def _train(parser):
    _data(parser)
    parser.add_argument("--model", default="small_cnn", help=_MODEL)
    _attack(parser, steps=7)
    parser.add_argument(
        "--objective",
        choices=("natural", "madry", "trades", "mart", "alp", "awp", "mixed"),
        default="madry",
        help="what is minimised (default madry; natural trains without attack)",
    )
    parser.add_argument("--beta", type=float, help="of trades (default 6) and mart (5)")
    parser.add_argument(
        "--attack-dtype",
        choices=("float32", "bfloat16", "float16", "auto"),
        default="float32",
        help="what passes of the attack in training compute in (default float32; auto is bfloat16 "
        "where it is faster, which a run of 1,000 steps or more tries first)",
    )
    parser.add_argument("--epochs", type=_count, default=15)
    parser.add_argument("--learning-rate", type=_positive, default=2e-3, help="of Adam, decayed")
    parser.add_argument(
        "--xla",
        nargs="?",
        choices=("auto", "on", "off"),
        const="on",
        default="auto",
        help="compile the step by XLA (default auto: on GPUs and TPUs, and on a CPU where it is "
        "faster, which a run of 1,000 steps or more tries first; --xla alone is on)",
    )
    parser.add_argument(
        "--resume", type=pathlib.Path, help="folder for the state of each epoch; goes on from it"
    )
    parser.add_argument(
        "--strategy",
        choices=("auto", "single", "mirrored", "multi_worker", "tpu"),
        default="auto",
        help="tf.distribute strategy (default auto: what TF_CONFIG, TPU_NAME and the GPUs say)",
    )
    parser.add_argument(
        "--workers",
        type=_count,
        default=1,
        help="processes on this machine that train together; when one dies all start again from "
        "--resume (default 1)",
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the .keras file to write")


def _evaluate(parser):
    parser.add_argument(
        "artifacts",
        nargs="+",
        metavar="[NAME=]PATH",
        help="a .keras file, an .h5 file of compress, a .krz file of kr.compress.pack, a "
        "SavedModel folder, a .tflite file, or the http address of a model behind TensorFlow "
        "Serving; the last two have no gradients and are attacked with examples made on the "
        "others, and by asking them",
    )
    _data(parser)
    _attack(parser, steps=20)
    parser.add_argument(
        "--attacks",
        default="pgd,autoattack",
        help="of fgsm, pgd, square, autoattack (default pgd,autoattack; fgsm,pgd is a quick look)",
    )
    parser.add_argument(
        "--no-black-box", action="store_true", help="do not ask what has no gradients directly"
    )
    parser.add_argument(
        "--diagnose", action="store_true", help="check whether the robustness is real"
    )
    parser.add_argument(
        "--corruptions", action="store_true", help="also the error under 15 common corruptions"
    )
    parser.add_argument(
        "--journal", type=pathlib.Path, help="folder for finished batches; goes on from it"
    )
    parser.add_argument("--images", type=_count, default=1000, help="test images (default 1000)")
    parser.add_argument("--report", type=pathlib.Path, help="folder for report.json, report.html")


def _compress(parser):
    _data(parser, default=None)
    parser.add_argument("--model", required=True, help=_MODEL)
    _attack(parser, steps=5)
    parser.add_argument(
        "--factorize", type=float, metavar="SHARE", help="of the weights that low-rank layers keep"
    )
    parser.add_argument(
        "--neurons", type=float, metavar="SHARE", help="of the neurons and channels to remove"
    )
    parser.add_argument("--prune", type=float, default=0.8, help="sparsity; 0 leaves it out")
    parser.add_argument("--cluster", type=int, default=16, help="values a layer; 0 leaves it out")
    parser.add_argument(
        "--binarize",
        action="store_true",
        help="weights of one bit, in the place of --prune and --cluster",
    )
    parser.add_argument("--no-quantize", action="store_true", help="leave int8 out")
    parser.add_argument("--epochs", type=_count, default=3, help="of each stage (default 3)")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write to")


def _export(parser):
    _data(parser, default=None)
    parser.add_argument("--model", required=True, help=_MODEL)
    parser.add_argument(
        "--format",
        choices=("float", "float16", "dynamic", "int8", "int16x8", "serving"),
        default="int8",
    )
    parser.add_argument("--version", type=_count, default=1, help="of a SavedModel (default 1)")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="file, or folder to serve")


_MODEL = "a .keras file of either Keras, or a built-in: small_cnn, lenet5, resnet18, ..."


def _data(parser, default="embedded"):
    of_a_file = "" if default else ", for a new model; where --model is a file, give its own"
    parser.add_argument(
        "--data",
        default=default,
        help="embedded (Fashion-MNIST subset), a folder of images by class, an .npz file, or a "
        f"tensorflow-datasets name (default embedded{of_a_file})",
    )
    parser.add_argument("--data-dir", help="where tensorflow-datasets keeps its data")
    parser.add_argument("--image-size", type=_count, help="side in pixels to resize images to")
    parser.add_argument("--limit", type=_count, help="at most so many training and test images")
    parser.add_argument("--batch-size", type=_count, default=128)


def _attack(parser, steps):
    parser.add_argument(
        "--eps",
        type=_number,
        default=0.1,
        help="radius for images in [0, 1] (default 0.1), such as 8/255",
    )
    parser.add_argument("--norm", choices=("linf", "l2", "l1"), default="linf")
    parser.add_argument("--steps", type=_count, default=steps, help=f"of PGD (default {steps})")
    parser.add_argument("--step-size", type=_number, help="of PGD (default 2.5 eps / steps)")


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text!r}")
    return int(text)


def _number(text: str) -> float:
    top, slash, bottom = text.partition("/")
    try:
        return float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        message = f"must be a number or a fraction, such as 0.1 or 8/255, got {text!r}"
        raise argparse.ArgumentTypeError(message) from None


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number > 0, got {text!r}")
    return value
