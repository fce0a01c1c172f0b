"""What "auto" leaves open: XLA or not, bfloat16 or not. Tried on this machine, not assumed."""

import time
import typing

import tensorflow as tf

from keras_robust import losses
from keras_robust._checks import check_labels
from keras_robust._fast_passes import fast_passes
from keras_robust._keras import computing_in
from keras_robust.attacks._attack import call_logits
from keras_robust.training._attack_dtype import takes_half

# Compiling twice takes seconds to a minute: a run must be long enough to earn that back.
LEAST_STEPS = 1000
_ROUNDS = 5
# What a way must gain to be taken: XLA compiles longer, bfloat16 rounds, and times vary by so much.
_WORTH = 0.95
# What XLA raises for an operation that it does not have.
_NO_XLA = (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)


class Trial(typing.NamedTuple):
    """How long a forward and backward pass took.

    Attributes:
        compiled, plain: seconds, with XLA and without; None where XLA cannot compile the model,
            NaN where nothing was timed.
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


class HalfTrial(typing.NamedTuple):
    """How long a forward and backward pass took.

    Attributes:
        half, full: seconds, in bfloat16 and in the model's own precision.
    """

    half: float
    full: float

    @property
    def attack_dtype(self) -> str | None:
        """What is faster: "bfloat16", or None for the model's own precision."""
        return "bfloat16" if self.half < _WORTH * self.full else None

    def __str__(self):
        return (
            f"attack_dtype={self.attack_dtype!r}: a pass takes {1e3 * self.half:.3g} ms in "
            f"bfloat16, {1e3 * self.full:.3g} ms without"
        )


class Choice(typing.NamedTuple):
    """What a run took, and keeps to when it goes on."""

    jit_compile: bool
    attack_dtype: str | None


def xla_of(jit_compile, strategy) -> bool:
    """Whether XLA compiles the step, before any trial.

    Args:
        jit_compile: "auto" or a bool.
        strategy: the `tf.distribute.Strategy` of the model.

    Raises:
        ValueError: it should, on several CPUs.
    """
    kinds = {device.device_type for device in tf.config.list_logical_devices()}
    several = strategy.num_replicas_in_sync > 1
    if jit_compile == "auto":
        return "TPU" in kinds or (kinds != {"CPU"} and not several)
    if jit_compile and several and kinds == {"CPU"}:
        raise ValueError(
            f"`jit_compile`={jit_compile!r} cannot be had on several CPUs: XLA does not compile "
            "what they exchange. Use jit_compile='auto'."
        )
    return bool(jit_compile)


def settle(trainer, examples, rows, settings, known: Choice | None = None) -> None:
    """Sets `trainer.choice`, and `trainer.jit_compile` with it; trials go to `trainer.trials`.

    Args:
        trainer: an `AdversarialTraining`; one whose step is traced already keeps to it.
        examples: `(x, y)` like those of `fit`, None where they could not be looked at.
        rows: size of a batch.
        settings: of `fit`.
        known: what the run took before it was interrupted.
    """
    jit, dtype = bool(trainer.jit_compile), trainer.passes_dtype()
    devices = {device.device_type for device in tf.config.list_logical_devices()}
    auto_jit = trainer.auto_jit and devices == {"CPU"}
    auto_dtype = trainer.attack_dtype == "auto" and takes_half(trainer.model, trainer.objective)
    # There XLA is taken without a trial, where it can be.
    on_gpu = trainer.auto_jit and jit and "GPU" in devices
    alone = trainer.distribute_strategy.num_replicas_in_sync == 1
    if trainer.train_function is not None:
        pass
    elif known is not None:
        jit, dtype = known.jit_compile if auto_jit or on_gpu else jit, known.attack_dtype
    elif examples is not None and alone:
        long = steps_in(rows, **settings) >= LEAST_STEPS
        rows = -(-rows // trainer.accumulate)  # So many go through the network at once.
        batch, trainer.trials = [part[:rows] for part in examples], []
        if on_gpu and not compiles(trainer.model, *batch):
            trainer.trials.append(Trial(None, float("nan")))
            jit = False
        if auto_jit and long:
            trainer.trials.append(try_xla(trainer.model, *batch))
            jit = trainer.trials[-1].jit_compile
        if auto_dtype and long:
            trainer.trials.append(try_half(trainer.model, *batch, jit))
            dtype = trainer.trials[-1].attack_dtype
        for trial in trainer.trials if settings.get("verbose", 1) else ():
            print(f"{trainer.name}: {trial}", flush=True)
    trainer.jit_compile, trainer.choice = jit, Choice(jit, dtype)


def compiles(model, x, y) -> bool:
    """Whether XLA can compile a forward and backward pass of `model`, arguments as `try_xla`."""
    one_pass = _pass(model, True, weights=list(model.trainable_variables))
    try:
        one_pass(tf.cast(tf.convert_to_tensor(x), tf.float32), check_labels(y))
    except _NO_XLA:
        return False
    return True


def try_xla(model, x, y) -> Trial:
    """Times a pass of `model`, of which a step of adversarial training makes many.

    The pass is in inference mode and changes nothing.

    Args:
        model: returns logits.
        x: `(batch, ...)`, a batch as in training.
        y: `(batch,)` or `(batch, classes)`.
    """
    weights = list(model.trainable_variables)
    found = _times({jit: _pass(model, jit, weights=weights) for jit in (True, False)}, x, y)
    return Trial(found[True], found[False])


def try_half(model, x, y, jit: bool) -> HalfTrial:
    """Times a pass back to the images, in bfloat16 and as it is, with XLA or without.

    That a processor has instructions for bfloat16 says little: with AVX512-BF16 alone some take
    half the time of float32, others twice as long.
    """
    found = _times({dtype: _pass(model, jit, dtype) for dtype in ("bfloat16", None)}, x, y)
    return HalfTrial(float("inf") if found["bfloat16"] is None else found["bfloat16"], found[None])


def _pass(model, jit, dtype=None, weights=()):
    def one_pass(x, labels):
        with computing_in(model, dtype), fast_passes(model, enabled=not jit):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_mean(losses.cross_entropy(labels, call_logits(model, x)))
            return tape.gradient(loss, [x, *weights], unconnected_gradients="zero")

    return tf.function(one_pass, jit_compile=jit, autograph=False)


def _times(passes: dict, x, y) -> dict:
    """Seconds of the fastest call of each, in turn; None where XLA cannot compile it."""
    x, labels = tf.cast(tf.convert_to_tensor(x), tf.float32), check_labels(y)
    times = {name: [] for name in passes}
    for name in list(passes):
        try:
            _wait(passes[name](x, labels))
        except _NO_XLA:
            if not name:
                raise
            del passes[name]
    for _ in range(_ROUNDS):
        for name, run in passes.items():
            start = time.perf_counter()
            _wait(run(x, labels))
            times[name].append(time.perf_counter() - start)
    return {name: min(seconds, default=None) for name, seconds in times.items()}


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
