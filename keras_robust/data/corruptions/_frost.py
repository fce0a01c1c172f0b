"""Ice crystals from random numbers, in place of the photographs of the original."""

import numpy as np

# Of the five photographs that the original draws from: brightness, spread and colour.
_BRIGHTNESS = (0.45, 0.8)
_SPREAD = 0.075
_TINT = np.array([0.89, 1.03, 1.08], np.float32)
_CRYSTALS = 14
_NEEDLES = 24


def frost_plates(shape: tuple[int, int, int], draws) -> np.ndarray:
    """Pictures of frost, `(n, h, w, c)` in [0, 1], bluish when `c` is 3.

    Crystals grow from random points until they meet; each is a fan of brighter and darker
    needles, finer ones on coarser ones.
    """
    height, width, channels = shape
    centres = draws.uniform(-0.1, 1.1, (_CRYSTALS, 2))
    fans = draws.uniform(0, 1, (_CRYSTALS, 2, _NEEDLES * 4))
    grain = draws.normal((height, width))
    brightness = draws.uniform(*_BRIGHTNESS)
    rows, columns = np.meshgrid(
        (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij"
    )
    plates = np.empty((len(centres), height, width), np.float32)
    for image, (centre, fan) in enumerate(zip(centres, fans)):
        ice = _crystals(rows, columns, centre, fan) + 0.15 * grain[image]
        plates[image] = (ice - ice.mean()) / ice.std()
    plates = (brightness[:, None, None] + _SPREAD * plates)[..., None]
    return (plates * (_TINT if channels == 3 else 1)).clip(0, 1)


def _crystals(rows, columns, centres, fans):
    """The height of the ice at each pixel."""
    down = rows[..., None] - centres[:, 0]
    right = columns[..., None] - centres[:, 1]
    nearest = (down**2 + right**2).argmin(axis=-1)[..., None]
    down, right = (np.take_along_axis(part, nearest, -1)[..., 0] for part in (down, right))
    crystal, distance = nearest[..., 0], np.hypot(down, right)
    turn = np.arctan2(down, right) / (2 * np.pi) % 1
    coarse = _needles(fans[:, 0, :_NEEDLES], crystal, turn)
    # Side branches: the finer needles bend away from their stem, the farther out the more.
    fine = _needles(fans[:, 1], crystal, (turn + 0.8 * distance) % 1)
    return coarse + 0.7 * fine - 1.5 * distance


def _needles(fans, crystal, turn):
    """Linear interpolation of the needles of each crystal, over the full turn."""
    count = fans.shape[-1]
    place = turn * count
    before = place.astype(int) % count
    share = place - np.floor(place)
    return (1 - share) * fans[crystal, before] + share * fans[crystal, (before + 1) % count]
