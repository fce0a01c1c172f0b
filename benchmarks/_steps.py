"""One step of adversarial training, by its parts, by hand, and through `fit`."""

import contextlib

import tensorflow as tf
from _common import Clock

import keras_robust as kr
from keras_robust._fast_passes import fast_passes
from keras_robust._keras import keras
from keras_robust.attacks import _pgd

EPS = 0.1
BATCH = 128


def step_size(steps: int) -> float:
    return 2.5 * EPS / steps


def model_and_optimizer(weights=None, make=kr.zoo.small_cnn):
    """A network, the demo's by default, and its optimizer: nothing is made inside a trace."""
    model = make()
    if weights is not None:
        model.set_weights(weights)
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def cross_entropy(y, logits):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)


def divergence(clean, logits):
    log_p, log_q = tf.nn.log_softmax(clean), tf.nn.log_softmax(logits)
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1)


def input_gradient(objective, x):
    """The gradient to `x` alone of the sum of `objective(x)`."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        loss = tf.reduce_sum(objective(x))
    return tape.gradient(loss, x)


def update(model, optimizer, loss_of):
    """One step of `optimizer` on the mean of `loss_of()`."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(loss_of())
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))


class Parts:
    """The parts of a step as separate compiled functions, and their bare sum.

    Args:
        x, y: a batch.
        jit: whether XLA compiles each of them.
        make: makes the network.
    """

    def __init__(self, x, y, jit=False, make=kr.zoo.small_cnn):
        model, optimizer = model_and_optimizer(make=make)
        self._x, self._y = x, y

        @tf.function(jit_compile=jit)
        def to_x(x, y):
            return input_gradient(lambda x: cross_entropy(y, model(x, training=False)), x)

        @tf.function(jit_compile=jit)
        def by_blocks(x, y):
            with fast_passes(model):
                return input_gradient(lambda x: cross_entropy(y, model(x, training=False)), x)

        @tf.function(jit_compile=jit)
        def to_weights(x, y):
            update(model, optimizer, lambda: cross_entropy(y, model(x, training=True)))

        @tf.function(jit_compile=jit)
        def forward(x):
            return model(x, training=False)

        @tf.function(jit_compile=jit)
        def divergence_to_x(x, clean):
            return input_gradient(lambda x: divergence(clean, model(x, training=False)), x)

        @tf.function(jit_compile=jit)
        def trades_to_weights(x, x_adv, y):
            def loss():
                logits = model(x, training=True)
                away = divergence(logits, model(x_adv, training=True))
                return cross_entropy(y, logits) + 6.0 * away

            update(model, optimizer, loss)

        self._to_x, self._to_weights, self._forward = to_x, to_weights, forward
        self._by_blocks = by_blocks
        self._divergence_to_x, self._trades_to_weights = divergence_to_x, trades_to_weights

    def gradient(self, steps):
        """The gradient to the inputs only."""
        for _ in range(steps):
            self._to_x(self._x, self._y)

    def gradient_by_blocks(self, steps):
        """The same, the first convolution's by blocks of pixels."""
        for _ in range(steps):
            self._by_blocks(self._x, self._y)

    def train(self, steps):
        """The gradient to the weights, and the optimizer's update."""
        for _ in range(steps):
            self._to_weights(self._x, self._y)

    def madry(self, attack_steps):
        """What Madry's step cannot do without."""

        def run(steps):
            for _ in range(steps):
                for _ in range(attack_steps):
                    self._to_x(self._x, self._y)
                self._to_weights(self._x, self._y)

        return run

    def trades(self, attack_steps):
        """What TRADES' step cannot do without: one forward pass and one more backward one."""
        moved = tf.clip_by_value(self._x + 0.05, 0.0, 1.0)

        def run(steps):
            for _ in range(steps):
                clean = self._forward(self._x)
                for _ in range(attack_steps):
                    self._divergence_to_x(moved, clean)
                self._trades_to_weights(self._x, moved, self._y)

        return run


def plain_examples(model, x, y, attack_steps, generator):
    """PGD as one writes it by hand: random start, sign steps, clip to ball and range."""
    low, high = tf.maximum(x - EPS, 0.0), tf.minimum(x + EPS, 1.0)
    x_adv = tf.clip_by_value(x + generator.uniform(tf.shape(x), -EPS, EPS), low, high)
    for _ in range(attack_steps):
        gradient = input_gradient(lambda x: cross_entropy(y, model(x, training=False)), x_adv)
        x_adv = tf.clip_by_value(x_adv + step_size(attack_steps) * tf.sign(gradient), low, high)
    return tf.stop_gradient(x_adv)


def plain_loop(x, y, attack_steps, jit=False):
    """The whole step by hand in one `tf.function`."""
    model, optimizer = model_and_optimizer()
    generator = tf.random.Generator.from_seed(1)

    @tf.function(jit_compile=jit)
    def step(x, y):
        x_adv = plain_examples(model, x, y, attack_steps, generator)
        update(model, optimizer, lambda: cross_entropy(y, model(x_adv, training=True)))

    def run(steps):
        for _ in range(steps):
            step(x, y)

    return run


class _Stamps(keras.callbacks.Callback):
    """Reads the clock at the end of the first batch and of the last."""

    _supports_tf_logs = True  # Or tf_keras turns the logs into numbers for us.

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.clock = Clock()
        self.spent, self.steps = self.clock.read(), batch


class Fit:
    """`fit` of a compiled Keras model on the real data set, as its user runs it.

    The first batch of each call is left out, with what a call of `fit` does once (the check
    of the data, the iterator, the shuffle buffer): `once` holds it, CPU seconds a call. In the
    first call it is mostly tracing and compiling.
    """

    def __init__(self, model, data):
        self.model, self._data, self.once = model, data, []

    def __call__(self, steps):
        stamps, clock = _Stamps(), Clock()
        self.model.fit(self._data.take(steps + 1), shuffle=False, callbacks=[stamps], verbose=0)
        cpu, wall = (seconds / stamps.steps for seconds in stamps.spent)
        self.once.append(clock.read()[0] - cpu * (stamps.steps + 1))
        return cpu, wall


def compiled(model, jit=False):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"], jit_compile=jit)
    return model


def trainer(attack_steps, objective=None, jit=False, make=kr.zoo.small_cnn, **settings):
    """Our trainer around a new network, compiled."""
    attack = kr.attacks.PGD(eps=EPS, steps=attack_steps)
    return compiled(kr.AdversarialTraining(make(), attack, objective, **settings), jit)


def resnet():
    """ResNet-18 for images of 32x32 and three colours."""
    return kr.zoo.resnet18((32, 32, 3))


def clustered(once):
    """The demo's network with TF-MOT's clustered kernels, searched once a step or in each pass."""
    from keras_robust.compress import Cluster
    from keras_robust.compress._flatten import flatten
    from keras_robust.compress._stage import Context
    from keras_robust.compress._tfmot import cluster_wrapper

    wrapped = Cluster(16).wrap(flatten(kr.zoo.small_cnn()), Context(1, 1))
    for layer in wrapped.layers:
        if not once and hasattr(layer, "resolve_once"):
            layer.__class__ = cluster_wrapper().ClusterWeights
    return wrapped


def compiled_step(trained, data):
    """The function that `fit` compiled, without `fit` around it."""
    batches = iter(data.repeat())

    def run(steps):
        if trained.train_function is None:
            trained.fit(data.take(2), verbose=0)
        for _ in range(steps):
            trained.train_function(batches)

    return run


@contextlib.contextmanager
def unroll(up_to: int):
    """Attacks that are traced inside unroll loops of up to so many steps."""
    before = _pgd._UNROLL
    _pgd._UNROLL = up_to
    try:
        yield
    finally:
        _pgd._UNROLL = before


def unrolled_fit(trained, data, up_to):
    """`Fit` that was traced with its own limit of unrolling."""
    run = Fit(trained, data)
    with unroll(up_to):
        run(2)
    return run
