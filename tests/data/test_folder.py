"""`kr.data.load` on folders of images by class."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.data import arrays, load

pytestmark = pytest.mark.once

RNG = np.random.default_rng(0)


def image(*shape):
    return RNG.integers(0, 256, shape, np.uint8)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    encode = tf.io.encode_jpeg if path.suffix in (".jpg", ".jpeg") else tf.io.encode_png
    path.write_bytes(encode(pixels).numpy())
    return pixels


def classes(root, names=("cat", "dog"), count=5, shape=(6, 5, 3)):
    return {
        (name, i): write(root / name / f"{i}.png", image(*shape))
        for name in names
        for i in range(count)
    }


def test_one_folder_a_class(tmp_path):
    written = classes(tmp_path)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"no image")
    data = load(tmp_path, batch_size=None)
    assert data.class_names == ("cat", "dog") and data.input_shape == (6, 5, 3)
    train, test = arrays(data.train), arrays(data.test)
    assert np.bincount(train[1]).tolist() == [4, 4] and np.bincount(test[1]).tolist() == [1, 1]
    found = {(data.class_names[y], x.tobytes()) for xs, ys in (train, test) for x, y in zip(xs, ys)}
    expected = {(n, (p.astype(np.float32) / 255).tobytes()) for (n, _), p in written.items()}
    assert found == expected


@pytest.mark.parametrize("kind", ["test", "val", "validation"])
def test_given_split(tmp_path, kind):
    classes(tmp_path / "train")
    held_out = classes(tmp_path / kind, count=2)
    data = load(str(tmp_path), batch_size=2)
    x, y = arrays(data.test)
    assert y.tolist() == [0, 0, 1, 1] and len(arrays(data.train)[1]) == 10
    expected = np.stack(list(held_out.values())).astype(np.float32) / 255
    np.testing.assert_array_equal(x, expected)


def test_a_train_folder_alone_is_split(tmp_path):
    classes(tmp_path / "train")
    assert len(arrays(load(tmp_path, batch_size=2).test)[1]) == 2


def test_train_may_be_a_class(tmp_path):
    classes(tmp_path, ("car", "train"))
    assert load(tmp_path, batch_size=2).class_names == ("car", "train")


def test_kinds_of_files(tmp_path):
    flat = np.full((8, 8, 3), 100, np.uint8)
    for folder in ("a", "b"):
        write(tmp_path / folder / "1.jpg", flat)
        write(tmp_path / folder / "2.JPEG", flat)
        write(tmp_path / folder / "deep" / "3.PNG", flat)
        # A BMP and a GIF of one colour, byte by byte.
        rows = bytes([100]) * (8 * 8 * 3)
        head = b"BM" + (54 + len(rows)).to_bytes(4, "little") + bytes(4) + bytes([54, 0, 0, 0])
        info = [40, 8, 8, 1 + (24 << 16), 0, len(rows), 0, 0, 0, 0]
        head += b"".join(n.to_bytes(4, "little") for n in info)
        (tmp_path / folder / "4.bmp").write_bytes(head + rows)
    x, _ = arrays(load(tmp_path, batch_size=None).train)
    assert x.shape == (6, 8, 8, 3)
    np.testing.assert_allclose(x, 100 / 255, atol=1.5 / 255)


def test_gif_gives_its_first_picture(tmp_path):
    pil = pytest.importorskip("PIL.Image")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        frames = [pil.new("RGB", (4, 4), (value,) * 3) for value in (50, 200)]
        for i in range(2):
            frames[0].save(tmp_path / folder / f"{i}.gif", save_all=True, append_images=frames[1:])
    x, _ = arrays(load(tmp_path, batch_size=None).train)
    np.testing.assert_allclose(x, np.full((2, 4, 4, 3), 50 / 255), atol=1e-6)


def test_grey_stays_grey_and_mixed_becomes_colour(tmp_path):
    classes(tmp_path / "grey", shape=(4, 4, 1))
    assert load(tmp_path / "grey", batch_size=2).input_shape == (4, 4, 1)
    classes(tmp_path / "mixed", shape=(4, 4, 4))  # the alpha channel is dropped
    grey = write(tmp_path / "mixed" / "cat" / "0.png", image(4, 4, 1))
    x, _ = arrays(load(tmp_path / "mixed", batch_size=None, test_fraction=0.9).test)
    assert x.shape == (8, 4, 4, 3)
    same = [i for i in x if np.array_equal(i[..., :1], grey.astype(np.float32) / 255)]
    assert len(same) <= 1 and all(np.ptp(i, axis=-1).max() == 0 for i in same)


def test_grey_with_transparency_is_grey(tmp_path):
    classes(tmp_path, shape=(4, 4, 2))
    assert load(tmp_path, batch_size=2).input_shape == (4, 4, 1)


def test_differing_sizes_need_image_size(tmp_path):
    classes(tmp_path)
    write(tmp_path / "dog" / "9.png", image(7, 5, 3))
    with pytest.raises(ValueError, match="images differ in size: .* is 6x5 and .*9.png is 7x5"):
        load(tmp_path, batch_size=2, test_fraction=0.1)
    assert load(tmp_path, batch_size=2, image_size=4).input_shape == (4, 4, 3)


def test_limit_decodes_no_more(tmp_path):
    classes(tmp_path)
    data = load(tmp_path, batch_size=2, limit=2, test_fraction=0.4)
    assert sorted(arrays(data.train)[1]) == sorted(arrays(data.test)[1]) == [0, 1]


@pytest.mark.parametrize("kind", ["truncated", "text", "empty"])
def test_a_corrupt_image_is_named(tmp_path, kind):
    classes(tmp_path, shape=(32, 32, 3))
    path = tmp_path / "dog" / "3.png"
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"hello", "empty": b""}[kind])
    with pytest.raises(ValueError, match=r"the image .*dog.3\.png could not be read: .*Repair"):
        load(tmp_path, batch_size=2)


def test_wrong_folders(tmp_path):
    with pytest.raises(ValueError, match="has no class folders. One folder a class is needed"):
        load(tmp_path)
    write(tmp_path / "1.png", image(4, 4, 3))
    with pytest.raises(ValueError, match="has no class folders"):
        load(tmp_path)
    classes(tmp_path, ("cat",))
    with pytest.raises(ValueError, match="holds only one class"):
        load(tmp_path)
    (tmp_path / "dog").mkdir()
    with pytest.raises(ValueError, match="dog has no images. One folder a class is needed"):
        load(tmp_path)
    write(tmp_path / "dog" / "1.png", image(6, 5, 3))
    with pytest.raises(ValueError, match="class 1 has 1 image, but a split into training and"):
        load(tmp_path)


def test_test_classes_must_be_known(tmp_path):
    classes(tmp_path / "train")
    classes(tmp_path / "test", ("cat", "cow"))
    with pytest.raises(ValueError, match="classes that the training images lack: cow"):
        load(tmp_path)
