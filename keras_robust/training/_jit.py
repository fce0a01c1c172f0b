"""Whether XLA is worth it for a model on this machine: tried, not assumed."""

import functools
import time
import typing

import tensorflow as tf

from keras_robust import losses
from keras_robust._checks import check_labels
from keras_robust._fast_passes import fast_passes
from keras_robust.attacks._attack import call_logits

# Compiling twice takes seconds to a minute: a run must be long enough to earn that back.
LEAST_STEPS = 1000
_ROUNDS = 5
# What XLA must gain to be taken: it compiles longer, and times vary by so much.
_WORTH = 0.95


class Trial(typing.NamedTuple):
    """How long a forward and backward pass took.

    Attributes:
        compiled, plain: seconds, with XLA and without; None where XLA cannot compile the model.
    """

    compiled: float | None
    plain: float

    @property
    def jit_compile(self) -> bool:
        """Whether XLA is faster."""
        return self.compiled is not None and self.compiled < _WORTH * self.plain

    def __str__(self):
        if self.compiled is None:
            return "jit_compile=False: XLA cannot compile this model"
        return (
            f"jit_compile={self.jit_compile}: a pass takes {1e3 * self.compiled:.3g} ms with XLA, "
            f"{1e3 * self.plain:.3g} ms without"
        )


def try_both(model, x, y) -> Trial:
    """Times a pass of `model`, of which a step of adversarial training makes many.

    The pass is in inference mode and changes nothing.

    Args:
        model: returns logits.
        x: `(batch, ...)`, a batch as in training.
        y: `(batch,)` or `(batch, classes)`.
    """
    labels, variables = check_labels(y), list(model.trainable_variables)

    def one_pass(x, labels, jit):
        with fast_passes(model, enabled=not jit), tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_mean(losses.cross_entropy(labels, call_logits(model, x)))
        return tape.gradient(loss, [x, *variables], unconnected_gradients="zero")

    x = tf.cast(tf.convert_to_tensor(x), tf.float32)
    runs = {
        jit: tf.function(functools.partial(one_pass, jit=jit), jit_compile=jit, autograph=False)
        for jit in (True, False)
    }
    times = {True: [], False: []}
    for jit in list(runs):
        try:
            _wait(runs[jit](x, labels))
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            if not jit:
                raise
            del runs[jit]
    for _ in range(_ROUNDS):
        for jit, run in runs.items():
            start = time.perf_counter()
            _wait(run(x, labels))
            times[jit].append(time.perf_counter() - start)
    return Trial(min(times[True], default=None), min(times[False]))


def steps_in(rows, x, epochs=1, initial_epoch=0, steps_per_epoch=None, **_) -> int:
    """How many steps `fit` takes with batches of `rows` and these settings, 0 if nobody knows."""
    if steps_per_epoch is None:
        if isinstance(x, tf.data.Dataset):
            steps_per_epoch = max(0, int(x.cardinality()))
        else:
            steps_per_epoch = -(-len(x) // rows) if rows and hasattr(x, "__len__") else 0
    return steps_per_epoch * max(0, epochs - initial_epoch)


def _wait(tensors):
    for tensor in tensors:
        tf.convert_to_tensor(tensor).numpy()
