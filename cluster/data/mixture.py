"""Which data set each row of the training sequence comes from, and how often each occurred before: in closed form.

Each data set has an interval of whole length; together they divide the residues modulo M, the sum of the lengths. The
row at position i comes from the data set in whose interval (multiplier * i + offset) mod M falls. The multiplier is
coprime to M, so every M consecutive positions hold each data set exactly as often as its interval is long. It is about
M times the golden ratio, which spreads a data set evenly: every batch has nearly the same mix.

Counting the positions of a progression whose residue lies below a bound is a sum of floors, which Euclid's algorithm
evaluates in O(log M). So a run enters at any step without replaying the draws before it.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence

import numpy as np

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
WEIGHT_STEPS = 1 << 32  # resolution of sampling weights


class Mixture:
    """An endless sequence of data sets.

    Args:
      lengths: of the data sets' intervals, each at least 1.
      offset: any whole number; the sequence of each is another.
    """

    def __init__(self, lengths: Sequence[int], offset: int) -> None:
        self._bounds = (0, *itertools.accumulate(lengths))
        self._period, self._offset = self._bounds[-1], offset
        start = max(1, round(GOLDEN_RATIO * self._period))
        self._multiplier = next(a for a in itertools.count(start) if math.gcd(a, self._period) == 1)

    def datasets(self, positions: range) -> np.ndarray:
        """The data set of each position, int64 [positions]; at most a few thousand positions."""
        first, stride = self._progression(positions)
        residues = (first + stride * np.arange(len(positions), dtype=np.int64)) % self._period
        return np.searchsorted(self._bounds, residues, side="right") - 1

    def count(self, dataset: int, positions: range) -> int:
        """Number of the positions whose row comes from a data set."""
        first, stride = self._progression(positions)
        low, high = self._bounds[dataset : dataset + 2]
        # floor((x - low) / M) - floor((x - high) / M) is 1 if x mod M lies in low:high, else 0.
        below_low, below_high = (
            _floor_sum(len(positions), self._period, stride, first - bound) for bound in (low, high)
        )
        return below_low - below_high

    def position_of(self, dataset: int, num_rows: int) -> int:
        """A position before which exactly `num_rows` rows come from a data set."""
        low, high = self._bounds[dataset : dataset + 2]
        periods, rest = divmod(num_rows, high - low)
        positions = range(self._period + 1)
        in_period = bisect.bisect_left(positions, rest, key=lambda position: self.count(dataset, range(position)))
        return periods * self._period + in_period

    def _progression(self, positions: range) -> tuple[int, int]:
        """First residue and difference of the residues of evenly spaced positions."""
        first = self._multiplier * positions.start + self._offset
        return first % self._period, self._multiplier * positions.step % self._period


def interval_lengths(weights: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to positive weights, each at least 1."""
    total = sum(weights)
    return [max(1, round(weight / total * WEIGHT_STEPS)) for weight in weights]


def _floor_sum(count: int, divisor: int, slope: int, constant: int) -> int:
    """The sum of floor((slope * i + constant) / divisor) over 0 <= i < count; slope is not negative."""
    total = 0
    while count:
        total += count * (count - 1) // 2 * (slope // divisor) + count * (constant // divisor)
        slope, constant = slope % divisor, constant % divisor
        # What is left counts lattice points under a line; seen from the other axis, slope and divisor change places.
        count, constant = divmod(slope * count + constant, divisor)
        slope, divisor = divisor, slope
    return total
