"""Chances of bits learned from those before, in integers only, a batch of bits at a time.

Several counts of ones and zeros, each over the bits of one kind of context, are mixed as in
Mahoney's PAQ: a logistic regression on their log odds, trained as it goes. Integers, because
the decoder must come to the very same chances on any machine.
"""

import math

import numpy as np

from keras_robust.compress.packed._binary import ONE

_MOST = 1 << 15  # Counts are halved beyond.
_UNIT = 256  # One nat of log odds.
_LIMIT = 11 * _UNIT  # Chances stay within a 60,000th of 0 and 1.
LOGARITHM = np.array([round(_UNIT * math.log(n + 0.4)) for n in range(2 * _MOST)])
CHANCE = np.array(
    [round(ONE / (1 + math.exp(-x / _UNIT))) for x in range(-_LIMIT, _LIMIT + 1)]
).clip(1, ONE - 1)
_WEIGHT = 1 << 16  # A mixing weight of one.


class Mixer:
    """Predicts bits from contexts.

    Args:
        sizes: how many contexts each kind has.
        sets: sets of mixing weights; each batch of bits uses one.
    """

    def __init__(self, sizes: list[int], sets: int = 1):
        self._offsets = np.cumsum([0, *sizes[:-1]])[:, None]
        self._counts = np.zeros((2, sum(sizes)), np.int64)
        self._weights = np.full((sets, len(sizes) + 1), _WEIGHT * 2 // (3 + len(sizes)), np.int64)
        self._weights[:, -1] = 0
        self._seen = np.zeros(sets, np.int64)

    def code(self, coder, bits, contexts: np.ndarray, chosen: int = 0) -> np.ndarray:
        """Codes a batch of bits, and learns them.

        Args:
            coder: an `Encoder` or a `Decoder`.
            bits: int64 `(batch,)`; None when decoding.
            contexts: int64 `(kinds, batch)`, a context of each kind for each bit.
            chosen: the set of weights.
        """
        at = contexts + self._offsets
        odds = np.empty((len(at) + 1, at.shape[1]), np.int64)
        # Contexts that several sets of weights share are seen more often than each set is.
        zeros, ones = LOGARITHM[np.minimum(self._counts[:, at], len(LOGARITHM) - 1)]
        odds[:-1] = ones - zeros
        odds[-1] = _UNIT
        mixed = (self._weights[chosen] @ odds) >> 16
        chances = CHANCE[np.clip(mixed, -_LIMIT, _LIMIT) + _LIMIT]
        bits = coder.code(bits, chances)
        self._learn(bits, odds, bits * ONE - chances, at, chosen)
        return bits

    def _learn(self, bits, odds, errors, at, chosen):
        self._seen[chosen] += bits.size
        # A step for each batch, shorter the more was seen.
        rate = 12 + int(self._seen[chosen]).bit_length() // 2
        self._weights[chosen] += (odds @ errors) >> rate
        np.add.at(self._counts, (np.broadcast_to(bits, at.shape), at), 1)
        if int(self._seen[chosen]) >= _MOST:
            full = self._counts.sum(0) > _MOST
            if full.any():
                self._counts[:, full] >>= 1
