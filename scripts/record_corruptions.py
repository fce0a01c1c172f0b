"""Records what the original code of the common corruptions makes of one picture, for a test.

python scripts/record_corruptions.py make_cifar_c.py tests/data/corruptions/original.npz

`make_cifar_c.py` is ImageNet-C/create_c/make_cifar_c.py of github.com/hendrycks/robustness. It
needs scikit-image, opencv-python-headless, wand with ImageMagick, scipy and Pillow. Its random
numbers are replaced by ones that are recorded too, so that ours can be given the same.
"""

import sys

import numpy as np
from PIL import Image

SEVERITIES = (2, 5)
SIDE = 32
# Left out: frost (photographs), shot and impulse noise (nothing but random numbers), JPEG (its
# pixels depend on the version of libjpeg).
NAMES = (
    "gaussian_noise defocus_blur glass_blur motion_blur zoom_blur snow fog brightness contrast "
    "elastic_transform pixelate"
).split()


def main(source: str, target: str) -> None:
    original = load(source)
    picture = make_picture()
    recorded = {"picture": picture}
    for name in NAMES:
        draws = make_draws(name, np.random.default_rng(0))
        for number, draw in enumerate(draws):
            recorded[f"{name}/draw{number}"] = draw
        for severity in SEVERITIES:
            changed = run(original, name, picture, severity, draws)
            recorded[f"{name}/{severity}"] = np.round(changed * 257).astype(np.uint16)
    np.savez_compressed(target, **recorded)


def load(source: str) -> dict:
    """The functions of the original, at home with today's numpy and scikit-image."""
    text = open(source).read()
    start, end = (
        f"# /////////////// {what} ///////////////"
        for what in ("Distortion Helpers", "End Distortions")
    )
    text = text[text.index(start) : text.index(end)]
    for old, new in (
        ("np.float_", "np.float64"),
        ("multichannel=True", "channel_axis=-1"),
        ("np.fromstring", "np.frombuffer"),
        ("scipy.ndimage.interpolation", "scipy.ndimage"),
    ):
        text = text.replace(old, new)
    names = {"np": np}
    exec(text, names)
    return names


def make_picture() -> np.ndarray:
    """Waves, an edge and some grain, `(32, 32, 3)` uint8."""
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = [np.sin(7 * rows + 3 * columns), np.cos(9 * columns), np.sin(5 * (rows - columns))]
    picture = 0.45 + 0.2 * np.stack(waves, -1) + 0.25 * (rows + 0.3 < columns)[..., None]
    grain = np.random.default_rng(1).normal(0, 0.03, picture.shape)
    return np.round(255 * (picture + grain).clip(0, 1)).astype(np.uint8)


def make_draws(name: str, rng) -> list[np.ndarray]:
    """Random numbers in the order and shape in which keras_robust asks for them, of unit size."""
    if name == "gaussian_noise":
        return [rng.standard_normal((SIDE, SIDE, 3), np.float32)]
    if name == "glass_blur":
        return [rng.integers(-1, 1, (SIDE, SIDE, 2), np.int8) for _ in range(2)]
    if name == "motion_blur":
        return [np.float32(rng.uniform(-45, 45))]
    if name == "snow":
        noise = rng.standard_normal((SIDE, SIDE, 1), np.float32)
        return [noise, np.float32(rng.uniform(-135, -45))]
    if name == "fog":
        return [rng.uniform(-1, 1, (3, m, m)).astype(np.float32) for m in (1, 2, 4, 8, 16)]
    if name == "elastic_transform":
        shapes = (3, 2), (2, SIDE, SIDE)
        return [rng.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]
    return []


def run(original, name, picture, severity, draws) -> np.ndarray:
    """The original on one picture with these draws; values in [0, 255]."""
    order = in_their_order(name, draws)

    def uniform(low=0.0, high=1.0, size=None):
        draw = next(order)
        return float(draw) if size is None else high * draw

    def normal(size=None, loc=0.0, scale=1.0):
        return loc + scale * np.reshape(next(order), size)

    replaced = {"uniform": uniform, "normal": normal, "randint": lambda *_, **__: next(order)}
    before = {key: getattr(np.random, key) for key in replaced}
    for key, value in replaced.items():
        setattr(np.random, key, value)
    try:
        return np.asarray(original[name](Image.fromarray(picture), severity), np.float64)
    finally:
        for key, value in before.items():
            setattr(np.random, key, value)


def in_their_order(name, draws):
    """The same numbers in the order in which the original asks for them."""
    draws = [np.asarray(draw, np.float64) for draw in draws]
    if name == "glass_blur":
        for moves in draws:
            for row in range(SIDE - 1, 1, -1):
                for column in range(SIDE - 1, 1, -1):
                    down, right = moves[row, column].astype(int)
                    yield right, down
    elif name == "fog":
        for middle, across, down in draws:
            yield from (middle, across, down)
    elif name == "elastic_transform":
        moves, (down, right) = draws
        yield from (moves[:, ::-1], right, down)
    else:
        yield from draws


if __name__ == "__main__":
    main(*sys.argv[1:])
