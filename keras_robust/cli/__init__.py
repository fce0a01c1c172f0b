"""The command line: `keras-robust demo | train | evaluate | compress | export`."""

import importlib.util
import json
import os
import sys

from keras_robust.cli._parser import make_parser


def main(arguments=None) -> int:
    """Runs one command.

    Args:
        arguments: what follows the program's name; None takes them from the process.

    Returns:
        The exit code: 0 done, 1 failed while working, 2 wrong usage or input, 3 training diverged
        (a loss was not finite), 130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = make_parser().parse_args(arguments)
    _choose_keras()
    # Only now: what a command imports starts TensorFlow.
    from keras_robust.cli import _commands

    try:
        if getattr(options, "workers", 1) > 1 and not os.environ.get("TF_CONFIG"):
            return _commands.launch(options, arguments)
        result = getattr(_commands, options.command)(options)
    except KeyboardInterrupt:
        print("keras-robust: interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError, ImportError, FileNotFoundError) as error:
        print(f"keras-robust {options.command}: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"keras-robust {options.command}: {error}", file=sys.stderr)
        return 3  # Not 1: `kr.distribute.launch` need not try again.
    except (OSError, RuntimeError) as error:
        print(f"keras-robust {options.command}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result.facts, indent=2) if options.json else result.text)
    return 0


def _choose_keras() -> None:
    """This process is ours, so it picks tf_keras, which compressing needs, where there is one."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules and importlib.util.find_spec("tf_keras"):
        os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
