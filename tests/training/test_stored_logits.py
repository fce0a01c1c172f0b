"""Teachers' logits on disk: the same student as with the teachers at hand."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.training import teacher_logits, with_logits


@pytest.fixture
def teachers(cnn):
    return [cnn(seed=7), cnn(seed=8)]


def fitted(student, teachers, data, **settings):
    trainer = kr.Distillation(student, teachers, temperature=2.0, alpha=0.7, **settings)
    trainer.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"])
    history = trainer.fit(data, epochs=2, verbose=0, validation_data=data).history
    return student.get_weights(), history


@pytest.mark.parametrize("attacked", [False, True])
def test_trains_what_the_teachers_themselves_train(cnn, blobs, teachers, attacked):
    x, y = blobs(24)
    logits = teacher_logits(teachers, x, batch_size=10)
    settings = {"attack": kr.attacks.PGD(0.1, steps=2), "method": "rslad"} if attacked else {}
    settings |= {"mean": "geometric", "weights": [1.0, 3.0]}
    data = with_logits(x, y, logits, batch_size=12, seed=None)
    stored, logs = fitted(cnn(seed=1), "stored", data, **settings)
    plain = data.map(lambda x, y: (x, y["labels"]))
    asked, same_logs = fitted(cnn(seed=1), teachers, plain, **settings)
    for one, other in zip(stored, asked, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert logs.keys() == same_logs.keys() and "val_accuracy" in logs
    np.testing.assert_allclose(logs["loss"], same_logs["loss"], rtol=1e-5)


def test_are_the_teachers_words_in_the_order_of_the_images(blobs, teachers):
    x, _ = blobs(11)
    logits = teacher_logits(teachers, x, batch_size=4)
    assert logits.shape == (11, 2, 3) and logits.dtype == np.float32
    for index, teacher in enumerate(teachers):
        np.testing.assert_allclose(logits[:, index], teacher(x), atol=1e-5)


def test_each_image_keeps_its_own(blobs, teachers):
    x, y = blobs(24)
    data = with_logits(x, np.arange(24), teacher_logits(teachers, x), batch_size=5, seed=3)
    orders = []
    for _ in range(2):
        seen = [(batch[1]["labels"].numpy(), *batch) for batch in data]
        assert len(seen) == 4  # The four images left over are dropped.
        for index, images, given in seen:
            np.testing.assert_array_equal(images, x[index])
            np.testing.assert_allclose(given["logits"][:, 0], teachers[0](x[index]), atol=1e-5)
        orders.append(np.concatenate([index for index, _, _ in seen]).tolist())
    assert orders[0] != orders[1]
    again = with_logits(x, np.arange(24), teacher_logits(teachers, x), batch_size=5, seed=3)
    assert np.concatenate([y["labels"] for _, y in again]).tolist() == orders[0]


def test_uint8_images_are_scaled(cnn, rng):
    x = rng.integers(0, 255, size=(4, 6, 6, 1), dtype=np.uint8)
    logits = teacher_logits(cnn(), x)
    np.testing.assert_allclose(logits[:, 0], cnn()(np.float32(x) / 255), atol=1e-5)
    images, _ = next(iter(with_logits(x, np.arange(4), logits, 4, seed=None)))
    np.testing.assert_allclose(images, x / 255, atol=1e-6)


def test_file_is_written_once_and_known_again(tmp_path, cnn, blobs, teachers):
    x, _ = blobs(20)
    path = tmp_path / "logits.npy"
    first = teacher_logits(teachers, x, path)
    stamp = path.stat().st_mtime_ns
    second = teacher_logits(teachers, x, path)
    assert isinstance(second, np.memmap) and path.stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(first, second)
    with pytest.raises(ValueError, match="other teachers or other images"):
        teacher_logits([teachers[0], cnn(seed=9)], x, path)
    with pytest.raises(ValueError, match="other teachers or other images"):
        teacher_logits(teachers, x[::-1], path)
    with pytest.raises(ValueError, match=r"these teachers and images make float32 \(19, 2, 3\)"):
        teacher_logits(teachers, x[:19], path)
    path.write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"is no \.npy file"):
        teacher_logits(teachers, x, path)


def test_errors(cnn, blobs, teachers):
    x, y = blobs(12)
    logits = teacher_logits(teachers, x)
    with pytest.raises(ValueError, match="`teachers` is empty"):
        teacher_logits([], x)
    with pytest.raises(ValueError, match="must know the same classes"):
        teacher_logits([cnn(classes=3), cnn(classes=4)], x)
    with pytest.raises(ValueError, match=r"must end in '\.npy'"):
        teacher_logits(teachers, x, "logits.npz")
    with pytest.raises(ValueError, match=r"must have the shape \(12, teachers, classes\)"):
        with_logits(x, y, logits[:, 0])
    with pytest.raises(ValueError, match="models or 'stored', got 'teacher.keras'"):
        kr.Distillation(cnn(), "teacher.keras")
    with pytest.raises(ValueError, match="asks them about adversarial"):
        kr.Distillation(cnn(), "stored", attack=kr.attacks.PGD(0.1), method="iad")
    trainer = kr.Distillation(cnn(seed=1), "stored")
    trainer.compile("sgd")
    with pytest.raises(ValueError, match="must hold the teachers' logits"):
        trainer.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match=r"logits \(batch, teachers, 3\), got \(12, 2, 2\)"):
        trainer.fit(with_logits(x, y, logits[..., :2], 12), verbose=0)
    with pytest.raises(ValueError, match="which this trainer does not use"):
        trainer = kr.Distillation(cnn(seed=1), teachers)
        trainer.compile("sgd")
        trainer.fit(with_logits(x, y, logits, 12), verbose=0)
    with pytest.raises(ValueError, match="must be 3 numbers >= 0"):
        trainer = kr.Distillation(cnn(seed=1), "stored", mean="geometric", weights=[1, 2])
        trainer.compile("sgd")
        three = teacher_logits([*teachers, cnn(seed=3)], x)
        trainer.fit(with_logits(x, y, three, 12), verbose=0)


def test_no_images_and_no_batches_are_refused(cnn, blobs):
    (x, y), teacher = blobs(6), cnn(seed=1)
    with pytest.raises(ValueError, match="`x` is empty"):
        teacher_logits(teacher, x[:0])
    with pytest.raises(ValueError, match="`batch_size` must be a whole number >= 1, got 0"):
        teacher_logits(teacher, x, batch_size=0)
    logits = np.zeros((6, 1, 3), "float32")
    with pytest.raises(ValueError, match="`batch_size`=8 is more than the 6 images"):
        with_logits(x, y, logits, 8)
    assert len(list(with_logits(x, y, logits, 8, seed=None))) == 1
    with pytest.raises(ValueError, match="`logits` must have the shape"):
        with_logits(x, y, [1.0, 2.0], 2)
    with pytest.raises(ValueError, match="`logits` holds values that are NaN"):
        with_logits(x, y, logits * np.nan, 2)


def test_teachers_whose_values_alone_show_probabilities_are_refused(blobs, teachers, tmp_path):
    x, _ = blobs(12)
    soft = lambda images: tf.nn.softmax(teachers[0](images))  # noqa: E731
    with pytest.raises(ValueError, match=r"`teachers\[1\]` returned probabilities"):
        teacher_logits([teachers[0], soft], x, tmp_path / "logits.npy")
    assert not list(tmp_path.iterdir())
