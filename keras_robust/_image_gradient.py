"""The gradient of a first convolution with respect to its images, several pixels at a time.

Attacks ask for it in every step. The usual kernels work through it channel by channel of the
image, and one or three channels leave most of a vector register empty: in a small network it
took a third of a pass. Here the pixels of a block are the channels of one wide convolution.
"""

import typing

import numpy as np
import tensorflow as tf

# As many numbers as a block of pixels shall have.
_WIDTH = 16


def convolution(x, kernel, stride: int, padding: str):
    """`tf.nn.conv2d`, whose gradient with respect to `x` is taken by blocks of pixels.

    Args:
        x: `(batch, height, width, channels)`, all but the batch known.
        kernel: `(rows, columns, channels, filters)` of the type of `x`.
        stride: in both directions.
        padding: "same" or "valid".

    Returns:
        `(batch, ..., filters)`.
    """

    @tf.custom_gradient
    def forward(x, kernel):
        y = tf.nn.conv2d(x, kernel, stride, padding.upper())

        def backward(gradient):
            to_kernel = tf.compat.v1.nn.conv2d_backprop_filter(
                x, kernel.shape, gradient, [1, stride, stride, 1], padding.upper()
            )
            return gradient_to_images(gradient, kernel, x.shape, stride, padding), to_kernel

        return y, backward

    return forward(x, kernel)


def gradient_to_images(gradient, kernel, shape, stride: int, padding: str):
    """What `tf.nn.conv2d_transpose` computes: the gradient with respect to the images.

    Args:
        gradient: `(batch, rows, columns, filters)`, with respect to the convolution's output.
        kernel: `(rows, columns, channels, filters)`.
        shape: of the images, `(batch, height, width, channels)`.
        stride: in both directions.
        padding: "same" or "valid".

    Returns:
        `(batch, height, width, channels)`.
    """
    side = _block(shape[3], stride)
    sizes = zip(shape[1:3], gradient.shape[1:3], kernel.shape[:2], strict=True)
    rows, columns = (_axis(*known, stride, padding, side) for known in sizes)
    # An index one past the kernel stands for a tap outside of it, which is zero.
    taps = tf.pad(kernel, [[0, 1], [0, 1], [0, 0], [0, 0]])
    taps = tf.gather(tf.gather(taps, rows.taps), columns.taps, axis=2)
    taps = tf.transpose(taps, [0, 2, 5, 1, 3, 4])
    wide = [*taps.shape[:3], side * side * shape[3]]
    gradient = gradient[:, : rows.used, : columns.used]
    pixels = tf.nn.conv2d(
        gradient, tf.reshape(taps, wide), side // stride, [[0, 0], rows.pads, columns.pads, [0, 0]]
    )
    if side > 1:
        pixels = tf.nn.depth_to_space(pixels, side)
    return pixels[:, : shape[1], : shape[2]]


def _block(channels, stride) -> int:
    """The side of a block: a multiple of the stride, whose numbers about fill a register."""
    return max(stride, int((_WIDTH / channels) ** 0.5) // stride * stride)


class _Axis(typing.NamedTuple):
    """One axis of the wide convolution.

    Attributes:
        taps: `(taps of the wide kernel, pixels of a block)`, indices into the kernel.
        pads: zeros before and after the gradient.
        used: entries of the gradient that reach a pixel.
    """

    taps: np.ndarray
    pads: list
    used: int


def _axis(size, outputs, taps, stride, padding, side) -> _Axis:
    before = max(0, (outputs - 1) * stride + taps - size) // 2 if padding == "same" else 0
    # Pixel i hears of output o through tap i + before - stride * o: these are the outputs that
    # the pixels 0 to side - 1 hear of, and each further block hears of later ones.
    first, last = -((taps - 1 - before) // stride), (side - 1 + before) // stride
    tap = np.arange(side)[None, :] + before - stride * np.arange(first, last + 1)[:, None]
    tap = np.where((tap >= 0) & (tap < taps), tap, taps)
    blocks = -(-size // side)
    after = (blocks - 1) * (side // stride) + last + 1 - outputs
    return _Axis(tap, [-first, max(0, after)], outputs + min(0, after))
