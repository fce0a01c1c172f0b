"""Which Keras this process runs, and the few places where the two differ.

TensorFlow's own variable decides: `TF_USE_LEGACY_KERAS=1` means `tf_keras`, anything
else Keras 3. It is read once, here, and never written. Everything else in the package
says `from keras_robust._keras import keras`.
"""

import contextlib
import os

import tensorflow as tf

# TensorFlow's own rule, tensorflow/python/util/lazy_loader.py.
LEGACY = os.environ.get("TF_USE_LEGACY_KERAS") in ("1", "true", "True")
if LEGACY:
    try:
        import tf_keras as keras
    except ModuleNotFoundError as error:
        if error.name != "tf_keras":
            raise
        raise ImportError(
            "TF_USE_LEGACY_KERAS=1 asks for tf_keras, which is not installed. Install it, "
            'pip install "keras-robust[compress]", or leave the variable out (or set it to 0) to '
            "run Keras 3."
        ) from error
else:
    import keras


def iterators_per_epoch(dataset) -> int:
    """How often `fit` draws an iterator from `dataset` in each epoch.

    Keras 3 draws the next epoch's at the end of one, and drops it; not where the end is found
    by running out of data.
    """
    return 1 if LEGACY or int(dataset.cardinality()) < 0 else 2


def drawn_late(dataset):
    """`dataset` as `fit` should get it when the order of its shuffle must be repeated.

    `fit` of tf_keras draws an iterator more than it has epochs, and each takes an order. This
    takes it with the first element, which of that one is never asked for.
    """
    if not LEGACY:
        return dataset
    late = tf.data.Dataset.range(1).flat_map(lambda _: dataset)
    count = dataset.cardinality()
    if count != tf.data.UNKNOWN_CARDINALITY:
        late = late.apply(tf.data.experimental.assert_cardinality(count))
    return late.with_options(dataset.options())


NAME = f"tf_keras {keras.__version__}" if LEGACY else f"Keras {keras.__version__}"


def require_legacy(feature: str) -> None:
    """Raises `ImportError`, saying the fix, unless this process runs `tf_keras`."""
    if not LEGACY:
        raise ImportError(
            f"{feature} needs tf_keras, because TensorFlow Model Optimization works on nothing "
            f"else, but this process runs {NAME}. Set TF_USE_LEGACY_KERAS=1 in the environment "
            "before Python starts (or before the first import of tensorflow) and install the "
            'extra: pip install "keras-robust[compress]".'
        )


def check_model(model, argument: str = "model", what: str = "model") -> None:
    """Raises `TypeError` when `model` is an object of the Keras that does not run here.

    A plain callable passes: only Keras's objects can belong to the wrong Keras. `what` says what
    it is, such as "loss".
    """
    kind = _kind(model)
    if kind is not None and kind != LEGACY:
        theirs, fix = ("tf_keras", "=1") if kind else ("Keras 3", "=0")
        raise TypeError(
            f"`{argument}` is a {theirs} {what} ({type(model).__module__}."
            f"{type(model).__name__}), but this process runs {NAME}. Set "
            f"TF_USE_LEGACY_KERAS{fix} before the first import of tensorflow, or build the "
            f"{what} with {'tf_keras' if LEGACY else 'Keras 3'}."
        )


def _kind(model):
    """True for a tf_keras object, False for a Keras 3 one, None for neither."""
    for base in type(model).__mro__:
        root = base.__module__.partition(".")[0]
        if root in ("keras", "tf_keras"):
            return root == "tf_keras"
    return None


def is_model(value) -> bool:
    """Whether `value` is a model of the Keras that runs here."""
    return isinstance(value, keras.Model)


def loss_of(trainer, x, y, y_pred, sample_weight):
    """The compiled loss plus regularisation, a scalar; the "loss" metric is left alone."""
    if LEGACY:
        # `Model.compute_loss` would feed the "loss" metric, also from inside an attack.
        return trainer.compiled_loss(y, y_pred, sample_weight, regularization_losses=trainer.losses)
    return trainer.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)


def gradients_of(trainer, tape, loss, sources) -> list:
    """Gradients of scalar `loss`, made ready for `trainer.optimizer`.

    Call it after the tape's block, and `trainer.optimizer.apply_gradients` with their sum: what
    loss scaling of mixed precision asks for is done between the two.
    """
    if LEGACY:
        return [g for g, _ in trainer.optimizer.compute_gradients(loss, sources, tape=tape)]
    with tape:
        loss = trainer.optimizer.scale_loss(loss)
    return tape.gradient(loss, sources)


@contextlib.contextmanager
def computing_in(model, dtype: str | None):
    """While it lasts the layers of `model` compute in `dtype`; their variables stay as they are.

    For code that is being traced: what is traced inside keeps the type. None changes nothing.
    On a CPU depthwise convolutions stay in float32, which is faster.
    """
    make = keras.mixed_precision.Policy if LEGACY else keras.dtype_policies.DTypePolicy
    with contextlib.ExitStack() as stack:
        for layer in model._flatten_layers() if dtype else ():
            policy = layer._dtype_policy if LEGACY else layer.dtype_policy
            if policy.compute_dtype == "float32" and not _slow_in_half(layer):
                stack.callback(_set_policy, layer, policy)
                _set_policy(layer, make(f"mixed_{dtype}"))
                _cast_variables(layer, dtype, stack)
        yield


def only_consumer(layer):
    """The layer that alone takes what `layer` returns, called once like it; None if none does.

    Outputs of models are not looked at, nor calls inside subclassed ones.
    """
    after = layer._outbound_nodes
    if len(layer._inbound_nodes) != 1 or len(after) != 1:
        return None
    consumer = after[0].layer if LEGACY else after[0].operation
    return consumer if len(consumer._inbound_nodes) == 1 else None


def _slow_in_half(layer) -> bool:
    """Whether `layer` has no fast kernel in half precision."""
    # On CPUs TensorFlow's gradient with respect to its input takes 30 times as long in bfloat16.
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    return depthwise and not tf.config.list_physical_devices("GPU")


def _set_policy(layer, policy):
    if LEGACY:
        layer._set_dtype_policy(policy)
    else:
        layer.dtype_policy = policy


def _cast_variables(layer, dtype, stack):
    """Once for all calls: Keras 3 would do it in each, tf_keras not for layers already made."""
    if "Normalization" in type(layer).__name__:
        return  # They compute in float32 with parameters of their own type.
    if not LEGACY and not type(layer).__module__.startswith("keras."):
        return  # May use what a variable has and a tensor has not.
    kind = tf.Variable if LEGACY else keras.Variable
    for name, value in list(vars(layer).items()):
        if isinstance(value, kind) and value.dtype == "float32":
            # Past Keras, which would track the tensor of a graph as if it were state.
            stack.callback(object.__setattr__, layer, name, value)
            object.__setattr__(layer, name, tf.cast(tf.convert_to_tensor(value), dtype))


def for_workers(logs: dict) -> dict:
    """What a step returns: Keras 3 averages logs over several workers along axis 0."""
    workers = tf.distribute.MultiWorkerMirroredStrategy
    if LEGACY or not isinstance(tf.distribute.get_strategy(), workers):
        return logs
    return {name: tf.reshape(value, [1]) for name, value in logs.items()}


def steps_taken(trainer) -> tf.Tensor:
    """Steps that the trainer's optimizer has taken, an int32 scalar.

    Keras 3 calls the updates `iterations`, of which several steps make one where they accumulate.
    """
    optimizer = trainer.optimizer
    if LEGACY:
        return tf.cast(tf.convert_to_tensor(optimizer.iterations), tf.int32)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return tf.cast(tf.convert_to_tensor(optimizer._iterations), tf.int32)


def new_optimizer(optimizer):
    """`optimizer`, made here where it is a name that tf_keras may take for a legacy class's.

    Raises `TypeError` for an object of those: they have not what a step calls. By name tf_keras
    makes them on Apple's processors.
    """
    if not LEGACY:
        return optimizer
    if isinstance(optimizer, str):
        kinds = {name.lower(): kind for name, kind in vars(keras.optimizers).items()}
        kind = kinds.get(optimizer.lower())
        return kind() if isinstance(kind, type) else optimizer
    if isinstance(optimizer, keras.optimizers.legacy.Optimizer):
        raise TypeError(
            f"`optimizer` is of the legacy class {type(optimizer).__name__} of tf_keras, which "
            "cannot train here. Use the class of that name outside `legacy`, such as "
            "keras.optimizers.Adam."
        )
    return optimizer


def optimizer_variables(optimizer) -> list:
    """All that a run needs to go on with `optimizer`: slots, step, learning rate, loss scale."""
    if not LEGACY:
        return list(optimizer.variables)
    variables = list(optimizer.variables)
    # tf_keras counts neither the rate, which callbacks change, nor the loss scale among them.
    if isinstance(optimizer.learning_rate, tf.Variable):
        variables.append(optimizer.learning_rate)
    if isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer) and optimizer.dynamic:
        scale = optimizer._loss_scale
        variables += [scale.current_loss_scale, scale.counter]
    return variables


def unsaved_randomness(model) -> list[str]:
    """Names of layers whose random numbers cannot be resumed: tf_keras keeps no state of them."""
    if not LEGACY:
        return []
    kind = keras.__internal__.layers.BaseRandomLayer
    return [layer.name for layer in model._flatten_layers() if isinstance(layer, kind)]


def expects_probabilities(loss) -> bool:
    """Whether `loss` is a divergence, or a cross-entropy that was not told `from_logits=True`."""
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    name = getattr(loss, "__name__", type(loss).__name__).replace("_", "").lower()
    if "crossentropy" not in name and name != "kldivergence":
        return False
    if isinstance(loss, keras.losses.Loss):
        settings = loss.get_config()
        return not settings.get("from_logits", False)
    # A bare function's default; a partial or a function of the user's own is trusted.
    return (getattr(loss, "__module__", None) or "").split(".")[0] in ("keras", "tf_keras")
