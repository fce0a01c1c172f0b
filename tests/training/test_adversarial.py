"""Adversarial training: its limits, its logs, and everything that `fit` is used with."""

import dataclasses
import importlib.util

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust.attacks import FGSM, PGD

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def dataset(x, y, batch=32, *rest):
    return tf.data.Dataset.from_tensor_slices((x, y, *rest)).batch(batch)


def fit(model, x, y, attack, epochs=3, batch=32, **settings):
    """A fitted trainer; SGD, so that weights are a plain function of the gradients."""
    compile_settings = settings.pop("compile", {})
    trainer = kr.AdversarialTraining(model, attack, **settings)
    trainer.compile(keras.optimizers.SGD(0.1), LOSS, metrics=["accuracy"], **compile_settings)
    trainer.history = trainer.fit(dataset(x, y, batch), epochs=epochs, verbose=0).history
    return trainer


def assert_same_weights(one, other, tolerance=0.0):
    for a, b in zip(one.get_weights(), other.get_weights()):
        np.testing.assert_allclose(a, b, atol=tolerance)


def test_without_radius_is_plain_training(cnn, blobs):
    (x, y), plain, trained = blobs(), cnn(), cnn()
    plain.compile(keras.optimizers.SGD(0.1), LOSS)
    plain.fit(dataset(x, y), epochs=3, verbose=0)
    fit(trained, x, y, PGD(0.0, steps=2))
    assert_same_weights(plain, trained, 1e-6)


def test_one_step_is_gradient_descent_at_the_adversarial_examples(cnn, blobs):
    """FGSM has no randomness, so the step can be written out."""
    (x, y), model, reference = blobs(32), cnn(), cnn()
    x_adv = FGSM(0.1)(reference, x, y)
    with tf.GradientTape() as tape:
        loss = LOSS(y, reference(x_adv, training=True))
    gradients = tape.gradient(loss, reference.trainable_variables)
    trainer = fit(model, x, y, FGSM(0.1), epochs=1)
    for weight, new, gradient in zip(reference.get_weights(), model.get_weights(), gradients):
        np.testing.assert_allclose(new, weight - 0.1 * gradient.numpy(), atol=1e-6)
    np.testing.assert_allclose(trainer.history["loss"], [float(loss)], rtol=1e-5)


def test_makes_the_model_robust(cnn, blobs):
    """The classes differ by 0.6 in nine pixels, so that eps 0.2 leaves room to be right."""
    (x, y), kept = blobs(), {}
    for eps in (0.0, 0.2):
        model = cnn()
        ramp = kr.training.Ramp(steps=60)
        trainer = kr.AdversarialTraining(model, PGD(eps, steps=5), eps_ramp=ramp)
        trainer.compile(keras.optimizers.Adam(0.01), LOSS)
        trainer.fit(dataset(x, y), epochs=40, verbose=0)
        assert np.mean(np.argmax(model(x), 1) == y) > 0.95
        x_adv = PGD(0.25, steps=20)(model, x, y)
        kept[eps] = np.mean(np.argmax(model(x_adv), 1) == y)
    assert kept[0.0] < 0.2 and kept[0.2] > 0.8


def test_logs_clean_and_robust_accuracy(cnn, blobs):
    (x, y), model = blobs(), cnn()
    attack = FGSM(0.15)
    trainer = kr.AdversarialTraining(model, attack)
    trainer.compile("sgd", LOSS, metrics=["accuracy"])
    history = trainer.fit(dataset(x, y), validation_data=dataset(x, y, 40), verbose=0).history
    names = {"loss", "accuracy", "robust_accuracy"}
    assert set(history) == names | {f"val_{name}" for name in names}
    clean = np.argmax(model(x), 1) == y
    robust = clean & (np.argmax(model(attack(model, x, y)), 1) == y)
    np.testing.assert_allclose(history["val_accuracy"], [clean.mean()], atol=1e-6)
    np.testing.assert_allclose(history["val_robust_accuracy"], [robust.mean()], atol=1e-6)
    np.testing.assert_allclose(history["val_loss"], [float(LOSS(y, model(x)))], rtol=1e-4)
    logs = trainer.evaluate(dataset(x, y), verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["robust_accuracy"], robust.mean(), atol=1e-6)


def test_validation_attack_is_used_in_validation(cnn, blobs):
    (x, y), model = blobs(), cnn()
    fit(model, x, y, FGSM(0.0), epochs=30)
    logs = {}
    for eps in (0.0, 0.5):
        trainer = kr.AdversarialTraining(model, FGSM(0.1), validation_attack=FGSM(eps))
        trainer.compile("sgd", LOSS, metrics=["accuracy"])
        logs[eps] = trainer.evaluate(x, y, verbose=0, return_dict=True)
    assert logs[0.0]["robust_accuracy"] == pytest.approx(logs[0.0]["accuracy"])
    assert logs[0.5]["robust_accuracy"] < logs[0.0]["robust_accuracy"] - 0.3


def test_same_seed_same_weights_another_seed_others(cnn, blobs):
    (x, y), models = blobs(), [cnn() for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2)):
        fit(model, x, y, PGD(0.1, steps=2), seed=seed)
    assert_same_weights(models[0], models[1])
    with pytest.raises(AssertionError):
        assert_same_weights(models[0], models[2], 1e-6)


@pytest.mark.parametrize("attack", [FGSM(0.1), PGD(0.1, steps=2), PGD(0.1, steps=12, norm="l2")])
def test_compiles_with_xla(cnn, blobs, attack):
    (x, y), model, compiled = blobs(), cnn(batch_norm=True), cnn(batch_norm=True)
    attack = attack if isinstance(attack, FGSM) else dataclasses.replace(attack, random_start=False)
    fit(model, x, y, attack, compile={"jit_compile": False}, epochs=1)
    fit(compiled, x, y, attack, compile={"jit_compile": True}, epochs=1)
    assert_same_weights(model, compiled, 2e-3)


@pytest.mark.parametrize("objective", [kr.objectives.Madry(), kr.objectives.TRADES()])
def test_traces_once_in_a_whole_fit(cnn, blobs, objective):
    """96 images in batches of 40 leave a batch of 16 at the end of each epoch."""
    (x, y), model, traces = blobs(), cnn(), []

    @dataclasses.dataclass(frozen=True)
    class Counted(type(objective)):
        def minimise(self, *args):
            traces.append(1)
            return super().minimise(*args)

    fit(model, x, y, PGD(0.1, steps=2), batch=40, epochs=4, objective=Counted())
    assert len(traces) == 1


def test_sample_weights_leave_examples_out(cnn, blobs):
    (x, y), weighted, alone = blobs(64), cnn(), cnn()
    trainer = kr.AdversarialTraining(weighted, FGSM(0.1))
    trainer.compile(keras.optimizers.SGD(0.1), LOSS, weighted_metrics=["accuracy"])
    weight = np.repeat([2.0, 0.0], 32).astype("float32")
    trainer.fit(dataset(x, y, 64, weight), epochs=1, verbose=0)
    fit(alone, x[:32], y[:32], FGSM(0.1), epochs=1)
    assert_same_weights(weighted, alone, 1e-5)


def test_class_weights_are_sample_weights(cnn, blobs):
    (x, y), by_class, by_sample = blobs(32), cnn(), cnn()
    weights = {0: 1.0, 1: 3.0, 2: 0.5}
    for model, kind in ((by_class, "class"), (by_sample, "sample")):
        trainer = kr.AdversarialTraining(model, FGSM(0.1))
        trainer.compile(keras.optimizers.SGD(0.1), LOSS)
        sample = np.array([weights[label] for label in y], "float32")
        if kind == "class":
            trainer.fit(x, y, batch_size=32, shuffle=False, class_weight=weights, verbose=0)
        else:
            trainer.fit(x, y, batch_size=32, shuffle=False, sample_weight=sample, verbose=0)
    assert_same_weights(by_class, by_sample, 1e-6)


@pytest.mark.parametrize("kind", ["one_hot", "column", "custom"])
def test_other_losses_and_labels(cnn, blobs, kind):
    (x, y), model, reference = blobs(32), cnn(), cnn()
    losses = {
        "one_hot": keras.losses.CategoricalCrossentropy(from_logits=True),
        "column": LOSS,
        "custom": lambda labels, logits: kr.losses.cross_entropy(labels, logits),
    }
    labels = {"one_hot": np.eye(3, dtype="float32")[y], "column": y[:, None], "custom": y}[kind]
    metric = "categorical_accuracy" if kind == "one_hot" else "accuracy"
    trainer = kr.AdversarialTraining(model, FGSM(0.1))
    trainer.compile(keras.optimizers.SGD(0.1), losses[kind], metrics=[metric])
    trainer.fit(x, labels, batch_size=32, shuffle=False, verbose=0)
    fit(reference, x, y, FGSM(0.1), epochs=1)
    assert_same_weights(model, reference, 1e-5)


def test_regularisation_counts_once(blobs):
    (x, y) = blobs(32)

    def make():
        dense = keras.layers.Dense(
            3, kernel_regularizer=keras.regularizers.L2(0.1), kernel_initializer="ones"
        )
        return keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten(), dense])

    model, plain = make(), make()
    plain.compile(keras.optimizers.SGD(0.1), LOSS)
    plain.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    trainer = fit(model, x, y, FGSM(0.0), epochs=1)
    assert_same_weights(model, plain, 1e-6)
    expected = float(LOSS(y, make()(x))) + 0.1 * 36 * 3
    np.testing.assert_allclose(trainer.history["loss"], [expected], rtol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(blobs, policy):
    (x, y), layers = blobs(), keras.layers
    before = (
        keras.mixed_precision.global_policy().name if LEGACY else keras.config.dtype_policy().name
    )
    set_policy = (
        keras.mixed_precision.set_global_policy if LEGACY else keras.config.set_dtype_policy
    )
    set_policy(policy)
    try:
        start = keras.initializers.GlorotUniform(seed=0)
        outputs = [layers.Conv2D(4, 3, kernel_initializer=start), layers.ReLU(), layers.Flatten()]
        outputs.append(layers.Dense(3, dtype="float32", kernel_initializer=start))
        model = keras.Sequential([keras.Input((6, 6, 1)), *outputs])
        trainer = fit(model, x, y, PGD(0.1, steps=2), epochs=40)
    finally:
        set_policy(before)
    assert "LossScale" in type(trainer.optimizer).__name__ or policy == "mixed_bfloat16"
    assert all(weight.dtype == np.float32 for weight in model.get_weights())
    assert np.mean(np.argmax(model(x), 1) == y) > 0.9


def test_every_kind_of_model(blobs):
    (x, y), layers = blobs(), keras.layers

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.flatten, self.dense = layers.Flatten(), layers.Dense(3)

        def call(self, inputs):
            return self.dense(self.flatten(inputs))

    inputs = keras.Input((6, 6, 1))
    models = [
        Subclassed(),
        keras.Sequential([layers.Flatten(), layers.Dense(3)]),
        keras.Model(inputs, layers.Dense(3)(layers.Flatten()(inputs))),
    ]
    for model in models:
        fit(model, x, y, PGD(0.05, steps=2), epochs=20)
        assert np.mean(np.argmax(model(x), 1) == y) > 0.9


@pytest.mark.skipif(not LEGACY, reason="TF-MOT works on tf_keras only")
@pytest.mark.parametrize("kind", ["pruned", "clustered", "quantized"])
def test_wrapped_models(cnn, blobs, kind):
    from keras_robust.compress._tfmot import tfmot

    (x, y), mot = blobs(), tfmot()
    wrap = {
        "pruned": lambda m: mot.sparsity.keras.prune_low_magnitude(m),
        "clustered": lambda m: mot.clustering.keras.cluster_weights(
            m,
            number_of_clusters=8,
            cluster_centroids_init=mot.clustering.keras.CentroidInitialization.LINEAR,
        ),
        "quantized": mot.quantization.keras.quantize_model,
    }[kind]
    model = wrap(cnn())
    callbacks = [mot.sparsity.keras.UpdatePruningStep()] if kind == "pruned" else []
    trainer = kr.AdversarialTraining(model, PGD(0.1, steps=2))
    trainer.compile(keras.optimizers.Adam(0.01), LOSS, metrics=["accuracy"])
    trainer.fit(dataset(x, y), epochs=25, verbose=0, callbacks=callbacks)
    assert np.mean(np.argmax(model(x), 1) == y) > 0.9


def test_early_stopping_and_checkpoint(cnn, blobs, tmp_path):
    (x, y), model, path = blobs(), cnn(), tmp_path / "best.keras"
    trainer = kr.AdversarialTraining(model, FGSM(0.05))
    trainer.compile(keras.optimizers.SGD(1e-9), LOSS, metrics=["accuracy"])
    stop = keras.callbacks.EarlyStopping("val_robust_accuracy", mode="max", patience=2)
    save = keras.callbacks.ModelCheckpoint(str(path), "val_robust_accuracy", mode="max")
    history = trainer.fit(
        dataset(x, y), validation_data=(x, y), epochs=9, verbose=0, callbacks=[stop, save]
    )
    assert len(history.epoch) == 3
    loaded = keras.models.load_model(path)
    assert type(loaded) is type(model)
    np.testing.assert_allclose(loaded(x), model(x), atol=1e-6)


def test_backup_and_restore(cnn, blobs, tmp_path):
    """A fit that dies in its third epoch goes on there and ends as if it had not died."""
    (x, y), whole, model = blobs(), cnn(), cnn()
    attack = PGD(0.1, steps=2)

    class Dies(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def run(model, *callbacks):
        trainer = kr.AdversarialTraining(model, attack)
        trainer.compile(keras.optimizers.Adam(0.01), LOSS)
        trainer.fit(dataset(x, y), epochs=4, verbose=0, callbacks=list(callbacks))

    backup = [keras.callbacks.BackupAndRestore(str(tmp_path / "backup")) for _ in range(2)]
    run(whole)
    with pytest.raises(KeyboardInterrupt):
        run(model, backup[0], Dies())
    fresh = cnn(seed=9)
    run(fresh, backup[1])
    assert_same_weights(fresh, whole)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="no tensorboard")
def test_tensorboard(cnn, blobs, tmp_path):
    x, y = blobs()
    trainer = kr.AdversarialTraining(cnn(), FGSM(0.1))
    trainer.compile("sgd", LOSS)
    board = keras.callbacks.TensorBoard(str(tmp_path))
    trainer.fit(dataset(x, y), validation_data=(x, y), verbose=0, callbacks=[board])
    assert {path.name for path in tmp_path.iterdir()} >= {"train", "validation"}


def test_saved_weights_load_into_another_trainer(cnn, blobs, tmp_path):
    (x, y), path = blobs(), tmp_path / "trainer.weights.h5"
    trainer = fit(cnn(), x, y, FGSM(0.1))
    trainer.save_weights(path)
    other = fit(cnn(seed=4), x, y, FGSM(0.1), epochs=1)
    other.load_weights(path)
    assert_same_weights(trainer.model, other.model)
    np.testing.assert_allclose(other.predict(x, verbose=0), trainer.model(x), atol=1e-5)


def test_eps_ramp_scales_the_attack(cnn, blobs):
    """During the first step of a ramp from 0 the inputs are clean."""
    (x, y), ramped, plain = blobs(32), cnn(), cnn()
    fit(ramped, x, y, PGD(0.3, steps=2), epochs=1, eps_ramp=kr.training.Ramp(steps=10))
    fit(plain, x, y, PGD(0.0, steps=2), epochs=1)
    assert_same_weights(ramped, plain, 1e-6)
    full, half = cnn(), cnn()
    fit(half, x, y, FGSM(0.3), epochs=1, eps_ramp=kr.training.Ramp(steps=10, start=0.5))
    fit(full, x, y, FGSM(0.15), epochs=1)
    assert_same_weights(half, full, 1e-6)


def test_wrong_arguments_are_refused(cnn):
    model, attack = cnn(), FGSM(0.1)
    with pytest.raises(TypeError, match="`model` must be a Keras model, got function"):
        kr.AdversarialTraining(lambda x: x, attack)
    with pytest.raises(TypeError, match="`attack` must be for instance .*PGD.*, got 'PGD'"):
        kr.AdversarialTraining(model, "PGD")
    with pytest.raises(TypeError, match="`objective` must be for instance .*Madry"):
        kr.AdversarialTraining(model, attack, objective="trades")
    with pytest.raises(TypeError, match="`eps_ramp` must be for instance"):
        kr.AdversarialTraining(model, attack, eps_ramp=3)
    softmax = keras.Sequential([model, keras.layers.Softmax()])
    with pytest.raises(ValueError, match="`model` ends in a softmax or sigmoid"):
        kr.AdversarialTraining(softmax, attack)


@pytest.mark.parametrize(
    "loss",
    [
        "sparse_categorical_crossentropy",
        keras.losses.SparseCategoricalCrossentropy(),
        keras.losses.categorical_crossentropy,
    ],
)
def test_losses_of_probabilities_are_refused(cnn, loss):
    with pytest.raises(ValueError, match="expects probabilities, but the model returns logits"):
        kr.AdversarialTraining(cnn(), FGSM(0.1)).compile("sgd", loss)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x, y: (x * 255, y), ValueError, "outside bounds"),
        (lambda x, y: ((x * 255).astype("uint8"), y), TypeError, "must be floating point"),
        (lambda x, y: (x, y + 1), ValueError, r"`y` must be in \[0, 3\)"),
        (lambda x, y: (x * np.nan, y), ValueError, "NaN"),
        (lambda x, y: (dataset(x[:0], y[:0]), None), ValueError, "`x` is an empty dataset"),
        (lambda x, y: (dataset(x, y).unbatch(), None), ValueError, "Batch it: dataset.batch"),
        (lambda x, y: (dataset(x, y), y), ValueError, "`y` must be None when `x` is a dataset"),
        (lambda x, y: (dataset(x, y).map(lambda x, y: x), None), ValueError, "dataset of .x, y."),
        (lambda x, y: (x, y[:-1]), ValueError, "must have the same length"),
        (lambda x, y: (), ValueError, "`x` must be arrays or .*, got None.*Give images and labels"),
    ],
)
def test_wrong_data_is_refused_before_training(cnn, blobs, change, error, message):
    model = cnn()
    before = model.get_weights()
    trainer = kr.AdversarialTraining(model, FGSM(0.1))
    trainer.compile("sgd", LOSS)
    with pytest.raises(error, match=message):
        trainer.fit(*change(*blobs()), verbose=0)
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_validation_data_is_checked_as_training_data_is(cnn, blobs):
    """Inputs outside the bounds would be clipped back by the attack, and look robust."""
    (x, y), trainer = blobs(), kr.AdversarialTraining(cnn(), FGSM(0.1))
    trainer.compile("sgd", LOSS)
    with pytest.raises(ValueError, match="`validation_data` has values in .* outside bounds"):
        trainer.fit(x, y, validation_data=(x * 255, y), verbose=0)
    with pytest.raises(ValueError, match="`x` has values in .* outside bounds"):
        trainer.evaluate(x * 255, y, verbose=0)
    with pytest.raises(TypeError, match="`x` must be floating point, got dtype uint8"):
        trainer.evaluate((x * 255).astype("uint8"), y, verbose=0)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_batches_of_a_generator_are_checked_as_they_come(cnn, blobs, dtype):
    """A generator cannot be looked at before training."""
    (x, y), trainer = blobs(), kr.AdversarialTraining(cnn(), FGSM(0.1))
    trainer.compile("sgd", LOSS)

    def batches():
        while True:
            yield (x[:32] * 255).astype(dtype), y[:32]

    with pytest.raises((tf.errors.InvalidArgumentError, TypeError), match="outside bounds|uint8"):
        trainer.fit(batches(), steps_per_epoch=2, verbose=0)


def test_fit_before_compile_is_refused(cnn, blobs):
    with pytest.raises((RuntimeError, ValueError), match="compile"):
        kr.AdversarialTraining(cnn(), FGSM(0.1)).fit(*blobs(), verbose=0)
