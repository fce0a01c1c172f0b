"""Distillation through compile and fit, with and without an attack."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.training.objectives._distil import METHODS


@pytest.fixture(scope="module")
def teacher(cnn, blobs):
    model = cnn(seed=7)
    trainer = kr.AdversarialTraining(model, kr.attacks.PGD(0.1, steps=2))
    trainer.compile(keras.optimizers.Adam(0.02))
    trainer.fit(*blobs(96), epochs=6, verbose=0)
    return model


def test_a_student_without_labels_learns_what_the_teacher_knows(cnn, blobs, teacher):
    x, y = blobs(96)
    kept = teacher.get_weights()
    student = cnn(seed=1)
    trainer = kr.Distillation(student, teacher, temperature=2.0, alpha=1.0)
    trainer.compile(keras.optimizers.Adam(0.02), metrics=["accuracy"])
    # The labels are wrong, and at alpha 1 nobody asks for them.
    history = trainer.fit(x, (y + 1) % 3, epochs=15, verbose=0).history
    assert set(history) == {"loss", "accuracy"}
    agree = np.argmax(student(x), axis=1) == np.argmax(teacher(x), axis=1)
    assert agree.mean() > 0.95
    for value, old in zip(teacher.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(value, old)
    assert len(trainer.trainable_variables) == len(student.trainable_variables)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("jit", [False, True])
def test_robust_distillation_makes_a_robust_student(cnn, blobs, teacher, method, jit):
    x, y = blobs(96)
    attack = kr.attacks.PGD(0.1, steps=3)
    trainer = kr.Distillation(cnn(seed=2), [teacher], 1.0, 5 / 6, attack, method=method)
    trainer.compile(keras.optimizers.Adam(0.02), metrics=["accuracy"], jit_compile=jit)
    logs = trainer.fit(x, y, batch_size=32, epochs=8, verbose=0, validation_data=(x, y)).history
    assert logs["val_accuracy"][-1] > 0.9 and logs["val_robust_accuracy"][-1] > 0.7


def test_a_network_teaches_its_clone_and_no_more(cnn, blobs, teacher):
    """Self-distillation: born again from new weights, while the first one stays what it was."""
    x, y = blobs(96)
    kept, student = teacher.get_weights(), keras.models.clone_model(teacher)
    agree = [np.mean(np.argmax(student(x), 1) == np.argmax(teacher(x), 1))]
    trainer = kr.Distillation(student, [teacher], temperature=2.0, alpha=1.0)
    trainer.compile(keras.optimizers.Adam(0.02))
    trainer.fit(x, (y + 1) % 3, epochs=15, verbose=0)
    agree.append(np.mean(np.argmax(student(x), 1) == np.argmax(teacher(x), 1)))
    assert agree[0] < 0.9 and agree[1] > 0.95
    for value, old in zip(teacher.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(value, old)


def step_for(model, teachers, **settings):
    """The loss of one step of `trainer`, as `fit` logs it with a learning rate of 0."""

    def loss(x, y):
        trainer = kr.Distillation(model, teachers, **settings)
        trainer.compile(keras.optimizers.SGD(0.0))
        return trainer.fit(x, y, batch_size=len(x), shuffle=False, verbose=0).history["loss"][0]

    return loss


def test_teachers_are_in_inference_mode(blobs, cnn):
    """Dropout keeps all units and BatchNormalization its statistics."""
    x, y = blobs(12)
    layers = [keras.layers.Flatten(), keras.layers.BatchNormalization()]
    layers += [keras.layers.Dropout(0.9), keras.layers.Dense(3)]
    teacher = keras.Sequential([keras.Input((6, 6, 1)), *layers])
    before, student = teacher.get_weights(), cnn(seed=3)
    expected = kr.losses.distillation(y, student(x), teacher(x, training=False), 3.0, 0.6)
    for attack in (None, kr.attacks.FGSM(0.0)):
        got = step_for(student, teacher, temperature=3.0, alpha=0.6, attack=attack)(x, y)
        np.testing.assert_allclose(got, tf.reduce_mean(expected), rtol=1e-5)
    for value, old in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, old)


def test_the_loss_is_the_formula(cnn, blobs, teacher):
    x, y = blobs(12)
    student, other = cnn(seed=3), cnn(seed=4)
    both = {"weights": [1, 3], "mean": "arithmetic", "temperature": 3.0, "alpha": 0.6}
    wanted = kr.losses.ensemble_logits([teacher(x), other(x)], 3.0, weights=[1, 3])
    expected = kr.losses.distillation(y, student(x), wanted, 3.0, 0.6)
    got = step_for(student, [teacher, other], **both)(x, y)
    np.testing.assert_allclose(got, tf.reduce_mean(expected), rtol=1e-5)


def test_weight_decay_is_not_shared_out(blobs, teacher):
    x, y = blobs(12)
    inputs = keras.Input((6, 6, 1))
    flat = keras.layers.Flatten()(inputs)
    decayed = keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.1))
    student = keras.Model(inputs, decayed(flat))
    expected = kr.losses.distillation(y, student(x), teacher(x), 2.0, 0.9)
    expected = tf.reduce_mean(expected) + 0.1 * tf.reduce_sum(tf.square(decayed.kernel))
    got = step_for(student, teacher, temperature=2.0, alpha=0.9)(x, y)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_methods_at_radius_zero_have_closed_forms(cnn, blobs, teacher):
    """Where the attack cannot move, x_adv is x."""
    x, y = blobs(12)
    student = cnn(seed=3)
    attack = kr.attacks.PGD(0.0, steps=1)
    soft = kr.losses.distillation(None, student(x), teacher(x), 2.0, 1.0)
    own = kr.losses.distillation(None, student(x), student(x), 2.0, 1.0)
    hard = kr.losses.cross_entropy(y, student(x))
    sure = tf.exp(-0.5 * kr.losses.cross_entropy(y, teacher(x)))
    expected = {
        "ard": 0.7 * soft + 0.3 * hard,
        "rslad": soft,
        "iad": 0.7 * (sure * soft + (1 - sure) * own) + 0.3 * hard,
    }
    for method, values in expected.items():
        settings = {"temperature": 2.0, "alpha": 0.7, "attack": attack, "method": method}
        got = step_for(student, teacher, trust=0.5, **settings)(x, y)
        np.testing.assert_allclose(got, tf.reduce_mean(values), rtol=1e-4, err_msg=method)


def test_resumes_and_saves_the_student(cnn, blobs, teacher, tmp_path):
    ends = []
    for folder, stops in (("whole", [3]), ("parts", [1, 3])):
        for epochs in stops:
            student = cnn(seed=5)
            trainer = kr.Distillation(student, teacher)
            trainer.compile(keras.optimizers.SGD(0.1))
            data = tf.data.Dataset.from_tensor_slices(blobs(32)).shuffle(32, seed=0).batch(16)
            trainer.fit(data, epochs=epochs, resume=tmp_path / folder, verbose=0)
        ends.append(student.get_weights())
    for here, there in zip(*ends, strict=True):
        np.testing.assert_array_equal(here, there)
    trainer.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    x = blobs(4)[0]
    np.testing.assert_allclose(loaded(x), student(x), atol=1e-6)


def test_validation_may_attack_where_training_does_not(cnn, blobs, teacher):
    x, y = blobs(24)
    trainer = kr.Distillation(cnn(), teacher, validation_attack=kr.attacks.FGSM(0.1))
    trainer.compile(keras.optimizers.Adam(0.02))
    history = trainer.fit(x, y, epochs=2, verbose=0, validation_data=(x, y)).history
    assert np.isnan(history["robust_accuracy"]).all()
    assert np.isfinite(history["val_robust_accuracy"]).all()


def test_errors(cnn):
    student = cnn()
    with pytest.raises(ValueError, match="`teachers` holds the student itself"):
        kr.Distillation(student, [cnn(), student])
    with pytest.raises(ValueError, match="`teachers` holds the student itself.*with new weights"):
        kr.Distillation(student, keras.Model(student.inputs, student.outputs))
    with pytest.raises(ValueError, match="`teachers` is empty"):
        kr.Distillation(student, [])
    attack = kr.attacks.PGD(0.1, steps=1)
    with pytest.raises(ValueError, match="`method` must be one of"):
        kr.Distillation(student, cnn(), attack=attack, method="best")
    with pytest.raises(ValueError, match="`method`='rslad' is a way .* under an `attack`"):
        kr.Distillation(student, cnn(), method="rslad")
    more = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten()])
    more.add(keras.layers.Dense(7))
    with pytest.raises(ValueError, match=r"`teachers\[1\]` has 7 logits, `student` has 3"):
        kr.Distillation(student, [cnn(), more])
    kr.Distillation(student, [cnn(), lambda x: more(x)])  # What a callable says is seen later.
    with pytest.raises(ValueError, match="`alpha` must be in"):
        kr.Distillation(student, cnn(), np.float32(4.0), np.float32(1.5))
    with pytest.raises(ValueError, match="`temperature` must be a number > 0"):
        kr.Distillation(student, cnn(), temperature=0)
    soft = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten()])
    soft.add(keras.layers.Dense(3, activation="softmax"))
    with pytest.raises(ValueError, match=r"teachers\[0\]"):
        kr.Distillation(student, soft)
    with pytest.raises(TypeError, match="`attack` must be for instance"):
        kr.Distillation(student, cnn(), attack="pgd")


@pytest.mark.parametrize("attack", [None, kr.attacks.PGD(0.1, steps=2)])
def test_a_low_rank_layer_of_the_student_learns_too(blobs, teacher, attack):
    x, y = blobs(48)
    inputs = keras.Input((6, 6, 1))
    hidden = keras.layers.Dense(12, activation="relu")(keras.layers.Flatten()(inputs))
    layer = kr.layers.LowRankVirtual(2, name="lr")
    student = keras.Model(inputs, keras.layers.Dense(3)(layer(hidden)))
    trainer = kr.Distillation(student, teacher, attack=attack)
    trainer.compile(keras.optimizers.SGD(0.05))
    logs = trainer.fit(x, y, batch_size=16, epochs=10, verbose=0).history
    assert logs["lr_projection_loss"][-1] < logs["lr_projection_loss"][0]
    assert np.linalg.matrix_rank(layer.w.numpy(), tol=1e-4) == 2  # after 30 steps, every 10
    stripped = kr.layers.strip_virtual(student)
    np.testing.assert_array_equal(stripped(x), student(x))
