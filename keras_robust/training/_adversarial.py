"""Adversarial training as a Keras model around the user's."""

import contextlib
import inspect

import tensorflow as tf

from keras_robust._checks import (
    assert_in_bounds,
    assert_rows,
    check_images,
    check_labels,
    check_logit_model,
)
from keras_robust._fast_passes import fast_passes
from keras_robust._folded import folded_batch_norm
from keras_robust._keras import (
    computing_in,
    for_workers,
    gradients_of,
    is_model,
    keras,
    loss_of,
    steps_taken,
)
from keras_robust._replicas import share_of_replica
from keras_robust._seed import as_seed, fold
from keras_robust.attacks import Ascent
from keras_robust.training._attack_dtype import check_attack_dtype
from keras_robust.training._carried import carried_for
from keras_robust.training._choices import settle, xla_of
from keras_robust.training._compiled import check_loss, settled
from keras_robust.training._data import batch_rows, check_data, split_labels
from keras_robust.training._evidence import StopAtNaN, evidence_for
from keras_robust.training._fused_adam import fused_adam
from keras_robust.training._interrupt import keeps_objective
from keras_robust.training._parts import (
    Gradients,
    check_count,
    check_last,
    check_reduction,
    parts_of,
)
from keras_robust.training._ramp import Ramp
from keras_robust.training._resolved import resolved_weights
from keras_robust.training._resume import Resume
from keras_robust.training._validation import Validation, check_type, correct
from keras_robust.training.objectives import Madry, Objective, Step


class AdversarialTraining(keras.Model):
    """Trains `model` itself against `attack`, through `compile` and `fit`.

    Madry et al. 2018, https://arxiv.org/abs/1706.06083, unless another objective is given. The
    attack sees the model as it is used: `training=False`, so it moves no BatchNorm statistics
    and feeds no metric. `fit` and `evaluate` log, beside "loss" and the compiled metrics,
    "robust_accuracy": in training the share of the step's adversarial examples classified
    right, in validation (as "val_robust_accuracy") the share of inputs classified right both
    clean and under `validation_attack`. The compiled metrics are fed in validation with the
    clean inputs, in training with what the objective trained on: for Madry adversarial ones.

    `save` saves the trained `model`, plain and without this wrapper; `save_weights` the
    trainer's.

    Args:
        model: Keras model that returns logits `(batch, classes)`; it is trained in place.
        attack: an attack with an eps, such as `kr.attacks.PGD(eps=0.1, steps=7)`.
        objective: what is minimised; default `kr.objectives.Madry()`.
        eps_ramp: `kr.training.Ramp` that scales eps over the first steps, or None.
        validation_attack: attack of validation and `evaluate`; default `attack`. A dict name ->
            attack has all of them tried: "robust_accuracy" is then what withstands each one, and
            beside it is "robust_accuracy_<name>", for instance for the attack trained on and for
            one held out.
        attack_dtype: "bfloat16" or "float16" lets the attack's passes compute in it, the weights'
            step stays as it is; None computes both alike. On some processors bfloat16 takes half
            the time, on others, with the same instructions, longer: with "auto" a `fit` of at
            least 1,000 steps on one device times both, takes the faster and says so. Validation
            is not touched: robustness is always measured in the model's own precision.
        accumulate: parts in which a batch goes through the network, attack and all, before its one
            step of the weights: the memory of a small batch for the gradient of a large one. Only
            BatchNormalization tells the difference, which sees the parts.
        seed: int; the random numbers of every step follow from it and the step's number.
        **kwargs: `name`, as for any Keras model.

    Raises:
        TypeError: not a Keras model, a model, loss or optimizer of the other Keras, a legacy
            optimizer of tf_keras, or not an attack.
        ValueError: a model that ends in softmax; in `compile`, a loss that expects
            probabilities; in `fit`, data that does not fit the model, the attack and the loss.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> trainer = kr.AdversarialTraining(model, kr.attacks.PGD(eps=0.1, steps=2))
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> trainer.compile("adam", loss, metrics=["accuracy"])
    >>> x, y = np.random.default_rng(0).uniform(size=(8, 4)).astype("float32"), np.arange(8) % 3
    >>> history = trainer.fit(x, y, validation_data=(x, y), verbose=0)
    >>> sorted(history.history)[:3]
    ['accuracy', 'loss', 'robust_accuracy']
    """

    # Callbacks need not compute for a step what the step computes itself.
    resolves_weights = True
    _needs_attack = True
    _in_validation = False

    def __init__(
        self,
        model,
        attack,
        objective=None,
        *,
        eps_ramp=None,
        validation_attack=None,
        attack_dtype=None,
        accumulate=1,
        seed=0,
        **kwargs,
    ):
        check_logit_model(model)
        if not is_model(model):
            raise TypeError(f"`model` must be a Keras model, got {type(model).__name__}.")
        validation_attack = attack if validation_attack is None else validation_attack
        objective = Madry() if objective is None else objective
        if attack is not None or self._needs_attack:
            check_type(attack, Ascent, "attack", "kr.attacks.PGD(eps=0.1)")
        check_type(objective, Objective, "objective", "kr.objectives.Madry()")
        if eps_ramp is not None:
            check_type(eps_ramp, Ramp, "eps_ramp", "kr.training.Ramp(steps=1000)")
        if attack is not None:
            objective.check_attack(attack)
        check_attack_dtype(attack_dtype, model, objective)
        check_count(accumulate, objective)
        # The policy decides whether `compile` scales the loss, and it is the model's.
        super().__init__(dtype=model.dtype_policy, **kwargs)
        self.model = model
        self.attack = attack
        self.objective = objective
        self.eps_ramp = eps_ramp
        self.validation_attack = validation_attack
        self.attack_dtype = attack_dtype
        self.accumulate = accumulate
        self.seed = seed
        self.built = model.built
        self.auto_jit = False
        # What `fit` takes of what is "auto", None before it, and what it timed for that.
        self.choice, self.trials = None, []
        self._examples = None
        self.evidence = None  # The first batch whose loss is not finite.
        self._carried = None  # What a replaying objective carries from step to step.
        # Named "loss", it takes the place of the compiled one in the logs: that one would
        # hold the compiled part of the objective alone.
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._validation = Validation(validation_attack, trained=attack is not None)
        self._robust_accuracy = self._validation.worst

    def build(self, input_shape=None):
        if not self.model.built:
            self.model.build(input_shape)
        self.built = True

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)

    def compile(self, optimizer="adam", loss=None, metrics=None, jit_compile="auto", **kwargs):
        """Configures training, as `keras.Model.compile`.

        Args:
            optimizer: Keras optimizer or its name.
            loss: Keras loss or function of labels and logits. A cross-entropy must be told
                `from_logits=True`; default `SparseCategoricalCrossentropy(from_logits=True)`, for
                one-hot labels give `CategoricalCrossentropy(from_logits=True)`.
            metrics: as for `keras.Model.compile`.
            jit_compile: whether XLA compiles the step. "auto" does so on a TPU and, where it
                can compile a pass of the first batch, on one GPU; on one CPU, where XLA is faster
                for some models and slower for others, a `fit` of at least 1,000 steps tries both
                and says what it took; with `resume` a run keeps to its first choice. Several GPUs
                or CPUs go without: there XLA cannot compile the exchange of gradients on a CPU, and
                Keras leaves it out on GPUs too.
            **kwargs: as for `keras.Model.compile`.
        """
        with self.distribute_strategy.scope():
            optimizer, loss = settled(optimizer, loss)
        check_reduction(self.accumulate, loss)
        self.auto_jit = jit_compile == "auto"
        jit_compile = xla_of(jit_compile, self.distribute_strategy)
        super().compile(
            optimizer=optimizer, loss=loss, metrics=metrics, jit_compile=jit_compile, **kwargs
        )

    @keeps_objective
    def fit(self, x=None, y=None, *args, resume=None, **kwargs):
        """Trains `model`, as `keras.Model.fit`, with the data checked first.

        Args:
            x: arrays, a `tf.data.Dataset` of `(x, y)` or `(x, y, sample_weight)` batches, or
                what else Keras takes. Arrays are checked whole, a dataset by its first batch.
            y: labels, when `x` holds inputs only.
            *args: as for `keras.Model.fit`.
            resume: folder where the state after each epoch is kept, and at Ctrl-C that of the
                step. If it holds one, training goes on from there, to the same weights as
                without the interruption. `x` must then be a dataset, one with a seeded shuffle
                if it shuffles, and made anew where it was trained on in this process before.
                What callbacks count (the patience of `EarlyStopping`) starts anew, and so do,
                under tf_keras, the random numbers of layers such as Dropout, which is warned of.
            **kwargs: as for `keras.Model.fit`.

        Returns:
            The Keras `History`; after a resume, with the epochs before it.

        Raises:
            FloatingPointError: a loss was not finite. The batch is kept in `nan_batch.npz` (of
                worker n `nan_batch_n.npz`; that of the smallest step holds the cause), in the
                folder of `resume` or a temporary one that the message names.
        """
        bounds = None if self.attack is None else self.attack.bounds
        examples = self._check_data(bounds, x, y, stored=self.objective.stored)
        validation = kwargs.get("validation_data")
        if validation is not None:
            pair = validation[:2] if isinstance(validation, (tuple, list)) else (validation, None)
            self._check_data(self._validation.bounds, *pair, "validation_data")
        if examples is not None and getattr(self, "optimizer", None) is not None:
            self._create_variables(*(part[:2] for part in examples))
        rows = batch_rows(x, examples, *args[:1], **kwargs)
        self._create_carried(examples, rows)
        evidence = evidence_for(self.evidence, self.distribute_strategy, rows, examples)
        if evidence is not self.evidence:  # Nor may a step go on that was traced with the other.
            self.evidence, self.train_function = evidence, None
        if isinstance(x, tf.data.Dataset):
            kwargs.setdefault("shuffle", False)  # Keras 3 warns that it will not shuffle one.
        given = kwargs.pop("callbacks", None) or []
        given = list(given) if isinstance(given, (list, tuple)) else [given]
        given.append(StopAtNaN(self.evidence, resume))
        settings = inspect.signature(super().fit).bind(x, y, *args, **kwargs).arguments
        settings = {**settings, **settings.pop("kwargs", {})}
        check_last(self.accumulate, examples, rows, **settings)
        if resume is None:
            settle(self, examples, rows, settings)
            return super().fit(x, y, *args, callbacks=given, **kwargs)
        if kwargs.get("steps_per_epoch") is not None:
            raise ValueError(
                "`steps_per_epoch` must be None with `resume`: an epoch that ends inside the "
                "dataset cannot be found again. Cut the dataset with take(steps)."
            )
        state = Resume(resume, self, x, given)
        start = max(state.restore(), settings.get("initial_epoch", 0))
        settle(self, examples, rows, settings, state.choice)
        for name in ("x", "y", "initial_epoch"):
            settings.pop(name, None)
        settings |= {"callbacks": [*given, state], "epochs": settings.pop("epochs", 1)}
        history = state.run(super().fit, initial_epoch=start, **settings)
        history.history, history.epoch = state.history, state.numbers
        return history

    def evaluate(self, x=None, y=None, *args, **kwargs):
        """Loss, compiled metrics and robust accuracy, as `keras.Model.evaluate`."""
        if not kwargs.get("_use_cached_eval_dataset"):  # What `fit` calls has been checked.
            self._check_data(self._validation.bounds, x, y)
            self.built = True
        with self._validating():
            return super().evaluate(x, y, *args, **kwargs)

    @property
    def metrics(self):
        return super().metrics + (self._validation.each if self._in_validation else [])

    @contextlib.contextmanager
    def _validating(self):
        """Within, the metrics of each validation attack are the model's."""
        before, self._in_validation = self._in_validation, True
        try:
            yield
        finally:
            self._in_validation = before

    def _check_data(self, bounds, x, y, argument="x", stored=None):
        # The call in it may be the first, which makes the weights.
        scope = contextlib.nullcontext() if self.model.built else self.distribute_strategy.scope()
        with scope:
            examples = check_data(self.model, bounds, x, y, argument, stored)
        if examples is not None:
            check_loss(getattr(self, "loss", None), examples[1], argument)
        return examples

    def _create_variables(self, x, y):
        """Those of optimizer and metrics: a first trace that creates any is thrown away."""
        self.built, self._examples = True, (x, y)
        with self.distribute_strategy.scope():
            if not getattr(self.optimizer, "built", False):  # Loss scaling would build anew.
                self.optimizer.build(self.model.trainable_variables)
            alone = not tf.distribute.has_strategy()
        if alone:
            logits = self.model(x, training=False)
            loss_of(self, x, y, logits, None)
            self.compute_metrics(x, y, logits, None)
            self.reset_metrics()

    def _create_carried(self, examples, rows):
        if self.objective.carries and self._carried is None:
            self._carried = carried_for(self.objective, self.distribute_strategy, examples, rows)

    def passes_dtype(self) -> str | None:
        """What passes of the attack compute in, None for the model's own precision."""
        if self.objective.takes_differences:
            return None
        if self.choice is not None:
            return self.choice.attack_dtype
        return None if self.attack_dtype == "auto" else self.attack_dtype

    def carried_variables(self) -> list:
        """What each replica carries from step to step: part of a run's state."""
        return [] if self._carried is None else self._carried.variables()

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras 3 under a strategy. It cannot look into a batch that is spread over workers.
        if self._examples is not None:
            iterator, data_batch = None, self._examples
        super()._maybe_symbolic_build(iterator, data_batch)

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y, logits = split_labels(y)
        x = assert_rows(check_images(x))
        if self.attack is not None:
            assert_in_bounds(x, self.attack.bounds)
        for _ in range(self.objective.replays):
            with resolved_weights(self.model), self._fast_passes():
                logs = self._train_once(x, y, sample_weight, logits)
        return for_workers(logs)

    def _train_once(self, *batch):
        """One step of the weights; the logs."""
        variables, gradients = self.model.trainable_variables, Gradients()
        of_all = share_of_replica(batch[0])
        for number, (part, share, after) in enumerate(parts_of(self.accumulate, batch)):
            own, logs = self._gradients(variables, number, *part)
            after(gradients.add(own, share * of_all))
        with fused_adam(self.optimizer, enabled=not self.jit_compile):
            self.optimizer.apply_gradients(zip(gradients.sum, variables, strict=True))
        return logs

    def _gradients(self, variables, number, x, y, sample_weight, teacher_logits):
        """Those of the objective on part `number` of a batch, and the logs."""
        carries = self.objective.carries
        step = self._step(x, teacher_logits, number)
        dtype = self.passes_dtype()
        with folded_batch_norm(self.model, dtype), computing_in(self.model, dtype):
            x_adv = tf.stop_gradient(self.objective.perturb(step, x, check_labels(y)))
        with tf.GradientTape() as tape:
            if carries:
                tape.watch(x_adv)
            outcome = self.objective.minimise(step, x, x_adv, y, sample_weight)
        gradients = gradients_of(self, tape, outcome.loss, [*variables, *[x_adv] * carries])
        if carries:
            self._carried.write(self.objective.carry(step, x, gradients.pop()))
        if self.evidence is not None:
            self.evidence.look(outcome.loss, steps_taken(self), x, x_adv, y)
        self._update(outcome.loss, tf.shape(x)[0], self.attack and correct(outcome.adv_logits, y))
        return gradients, self.compute_metrics(x, y, outcome.logits, sample_weight)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x, (y, _) = assert_rows(check_images(x)), split_labels(y)
        logits = self.model(x, training=False)
        loss = loss_of(self, x, y, logits, sample_weight)
        with self._fast_passes():
            robust = self._validation.update(self.model, x, y, logits, self.seed)
        self._update(loss, tf.shape(x)[0], robust)
        with self._validating():
            return for_workers(self.compute_metrics(x, y, logits, sample_weight))

    def save(self, filepath, *args, **kwargs):
        """Saves the trained `model`, which loads without keras_robust."""
        return self.model.save(filepath, *args, **kwargs)

    def _fast_passes(self):
        return fast_passes(self.model, enabled=not self.jit_compile)

    def _step(self, x, teacher_logits, part) -> Step:
        """This step's settings: of the seed, the step's number, the replica and the part."""
        number = steps_taken(self)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        seed = fold(fold(as_seed(self.seed), number), replica)
        scale = 1.0 if self.eps_ramp is None else self.eps_ramp(number)
        return Step(
            model=self.model,
            attack=None if self.attack is None else self.attack.for_training(),
            eps=0.0 if self.attack is None else self.attack.eps * scale,
            seed=fold(seed, part) if part else seed,
            compiled_loss=lambda y, logits, weight: loss_of(self, None, y, logits, weight),
            carried=self._carried.read(x) if self.objective.carries else None,
            teacher_logits=teacher_logits,
        )

    def _update(self, loss, rows, robust):
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        # Each replica's loss is its share of the mean over the global batch.
        self._loss_mean.update_state(loss * replicas, sample_weight=rows)
        if robust is not None:
            self._robust_accuracy.update_state(tf.cast(robust, tf.float32))
