"""Ranks: the largest that pays, by energy, and allotted over layers to fit a budget."""

import heapq
import math

import numpy as np


def largest(rows: int, columns: int) -> int:
    """The largest rank whose two factors hold fewer weights than a `rows x columns` matrix.

    >>> largest(784, 300), largest(100, 10), largest(5, 1)
    (216, 9, 0)
    """
    return (rows * columns - 1) // (rows + columns)


def by_energy(values: np.ndarray, share: float) -> int:
    """The smallest rank that keeps `share` of the squared singular `values`, at least 1."""
    energy = np.cumsum(np.square(values, dtype=np.float64))
    if energy[-1] == 0:
        return 1
    # What float64 cannot tell from the share counts as reached.
    return int(np.argmax(energy / energy[-1] >= share - 1e-12)) + 1


def allot(spectra: list, shapes: list[tuple[int, int]], budget: float) -> list[int | None]:
    """The ranks of several matrices such that all together fit a budget.

    The product over the matrices of the energy kept is to be large, as in Zhang et al. 2016,
    https://arxiv.org/abs/1505.06798, section 2.4: at each step the cut is made that loses the
    least of its logarithm for a weight saved. A matrix starts whole, and its first cut goes to
    the rank where that is cheapest: just below the ranks that pay, a small matrix would lose
    much and save nothing. What is left of the budget in the end raises ranks again.

    Args:
        spectra: singular values of each matrix, largest first.
        shapes: `(rows, columns)` of each; rank 1 must pay for each.
        budget: share of the weights of the matrices that may be left, in (0, 1).

    Returns:
        For each matrix a rank from 1 to the largest that pays, or None where it stays whole.

    Raises:
        ValueError: ranks of 1 are too many already.
    """
    whole = sum(rows * columns for rows, columns in shapes)
    least = sum(rows + columns for rows, columns in shapes)
    if least > budget * whole:
        raise ValueError(
            f"`budget`={budget} is too small: with rank 1 everywhere the factors hold "
            f"{least / whole:.4f} of the {whole:,} weights. Give more, or fewer layers."
        )
    matrices = [_Matrix(*pair) for pair in zip(spectra, shapes, strict=True)]
    total = whole
    queue = [(matrix.price(), i) for i, matrix in enumerate(matrices)]
    heapq.heapify(queue)
    while total > budget * whole:
        _, i = heapq.heappop(queue)
        total -= matrices[i].cut()
        heapq.heappush(queue, (matrices[i].price(), i))
    while True:
        left = budget * whole - total
        raised = [m for m in matrices if m.rank and m.rank < m.most and m.cost <= left]
        if not raised:
            return [matrix.rank for matrix in matrices]
        best = max(raised, key=lambda m: (m.logs[m.rank + 1] - m.logs[m.rank]) / m.cost)
        best.rank += 1
        total += best.cost


class _Matrix:
    """A matrix at some rank, None while it is whole, and what the next cut costs."""

    def __init__(self, values, shape):
        self.whole, self.cost, self.most = math.prod(shape), sum(shape), largest(*shape)
        energy = np.cumsum(np.square(values, dtype=np.float64))
        shares = energy / energy[-1] if energy[-1] > 0 else np.ones_like(energy)
        # By rank; the largest that pays is below the number of values.
        self.logs = np.concatenate([[-np.inf], np.log(np.maximum(shares, 1e-300))])
        self.rank = None

    def _next(self) -> tuple[float, int]:
        """The loss for a weight saved, and the rank after the next cut."""
        if self.rank is not None:
            rank = self.rank - 1
            loss = np.inf if rank < 1 else self.logs[self.rank] - self.logs[rank]
            return loss / self.cost, rank
        ranks = np.arange(1, self.most + 1)
        prices = -self.logs[ranks] / (self.whole - ranks * self.cost)
        best = int(np.argmin(prices))
        return prices[best], best + 1

    def price(self) -> float:
        return float(self._next()[0])

    def cut(self) -> int:
        """Takes the next cut; returns the weights saved."""
        before = self.whole if self.rank is None else self.rank * self.cost
        self.rank = self._next()[1]
        return before - self.rank * self.cost
