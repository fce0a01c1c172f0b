"""Digital: what processing, resizing and storing do to a picture."""

import io

import numpy as np

from keras_robust.data.corruptions._level import Corruption


def contrast(x, level, draws):
    """Values move towards the mean of their channel; a share `level` of the distance is left."""
    mean = x.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
    return mean + np.float32(level) * (x - mean)


def elastic_transform(x, level, draws):
    """A random affine map, then smooth local shifts, both linear.

    Level: strength and sigma of the shifts and reach of the affine map, in shares of the side.
    """
    from scipy import ndimage

    side = min(x.shape[1:3])
    strength, sigma, reach = (share * side for share in level)
    moves = draws.uniform(-reach, reach, (3, 2))
    noise = draws.uniform(-1, 1, (2, *x.shape[1:3]))
    shifts = strength * ndimage.gaussian_filter(
        noise, (0, 0, sigma, sigma), mode="reflect", truncate=3
    )
    grid = np.indices(x.shape[1:3])
    out = np.empty_like(x)
    for image, (move, shift) in enumerate(zip(moves, shifts)):
        matrix, offset = _affine(x.shape[1:3], move)
        for channel in range(x.shape[-1]):
            warped = ndimage.affine_transform(
                x[image, :, :, channel], matrix, offset, order=1, mode="mirror"
            )
            out[image, :, :, channel] = ndimage.map_coordinates(
                warped, grid + shift, order=1, mode="reflect"
            )
    return out


def _affine(shape, moves):
    """Matrix and offset from where a pixel goes to where it comes from.

    Three corners of a square in the middle of the picture move by `moves`, `(3, 2)`.
    """
    corners = np.array([[1, 1], [-1, 1], [-1, -1]]) * (min(shape) // 3)
    corners = np.array(shape) // 2 + corners
    to = np.column_stack([corners + moves, np.ones(3)])
    solved = np.linalg.solve(to, corners)
    return solved[:2].T, solved[2]


def pixelate(x, level, draws):
    """Reduced to a share `level` of its sides and enlarged again, without smoothing."""
    down, right = (_box(side, int(side * level)) for side in x.shape[1:3])
    return np.einsum("ij,njkc,lk->nilc", down, x, right, optimize=True)


def _box(side, fewer):
    """Pillow's box filter from `side` pixels to `fewer` and back, as a matrix: it is linear."""
    from PIL import Image

    unit = Image.fromarray(np.eye(side, dtype=np.float32))
    return np.asarray(unit.resize((side, fewer), Image.BOX).resize((side, side), Image.BOX))


def jpeg_compression(x, level, draws):
    """Stored as JPEG of quality `level` and read again."""
    from PIL import Image

    pixels = np.round(255 * x).astype(np.uint8)
    out = np.empty_like(x)
    for image, picture in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(
            file, "JPEG", quality=level
        )
        decoded = np.asarray(Image.open(file), np.float32) / 255
        out[image] = decoded.reshape(picture.shape)
    return out


# The original gives the large table in pixels, for a side of 224.
_ELASTIC_LARGE = tuple(
    tuple(244 / 224 * part for part in level)
    for level in (
        (2, 0.7, 0.1),
        (2, 0.08, 0.2),
        (0.05, 0.01, 0.02),
        (0.07, 0.01, 0.02),
        (0.12, 0.01, 0.02),
    )
)

DIGITAL = {
    "contrast": Corruption(
        "digital", contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)
    ),
    "elastic_transform": Corruption(
        "digital",
        elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        _ELASTIC_LARGE,
    ),
    "pixelate": Corruption(
        "digital", pixelate, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)
    ),
    "jpeg_compression": Corruption(
        "digital", jpeg_compression, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)
    ),
}
