"""The generators that Keras takes seeds from where it was given none, and the caller's back."""

import contextlib
import random
import sys


@contextlib.contextmanager
def keep_random_state():
    """Runs a block, or a function that it decorates; what is drawn next is then as before.

    A layer's initializers and its dropout draw a seed each when they are made, also in a copy.
    """
    before, own = random.getstate(), legacy_generator()
    legacy = None if own is None else own.getstate()
    try:
        yield
    finally:
        random.setstate(before)
        if own is not None:
            own.setstate(legacy)


@contextlib.contextmanager
def no_legacy_generator():
    """tf_keras's own generator away for a while: it then draws from Python's."""
    holder, own = _holder(), legacy_generator()
    if holder is None:
        yield
        return
    holder.generator = None
    try:
        yield
    finally:
        holder.generator = own


def legacy_generator():
    """What `tf_keras.utils.set_random_seed` made in this thread, None before it was called."""
    return getattr(_holder(), "generator", None)


def _holder():
    # Either Keras may run, and tf_keras beside Keras 3.
    return getattr(sys.modules.get("tf_keras.src.backend"), "_SEED_GENERATOR", None)
