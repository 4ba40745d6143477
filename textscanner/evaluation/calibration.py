"""Calibration of the decoder's threshold: scores under every candidate at once, and the best candidate.

The decoder ends a word at the first position whose presence is below the threshold (`inference/decode.py`). One pass
over the validation words gives the presence of every position, from which the readings under each candidate follow. The
reported scores are those at the selected candidate: one parameter is fitted on the validation set, which makes them
slightly optimistic.

Shapes: B batch, N positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from textscanner.charset import Charset
from textscanner.evaluation.metrics import WordCounts
from textscanner.inference.decode import Decoded

THRESHOLDS = np.round(np.arange(0.05, 0.80, 0.05), 2)
METRIC_PREFIX = "val"


class Calibration:
    """Word counts per data set and candidate threshold."""

    def __init__(self, num_datasets: int) -> None:
        self._counts = [[WordCounts() for _ in THRESHOLDS] for _ in range(num_datasets)]

    def add(self, dataset: int, truths: Sequence[str], decoded: Decoded, charset: Charset) -> None:
        """Counts a batch.

        Args:
          dataset: index of the data set.
          truths: labels, B of them.
          decoded: NumPy arrays with B rows.
          charset: the network's characters.
        """
        for row, truth in enumerate(truths):
            presence = decoded.presence[row]  # [N]
            all_characters = "".join(charset.decode(np.asarray([i])) for i in decoded.raw_ids[row])
            for t, threshold in enumerate(THRESHOLDS):
                below = np.flatnonzero(presence < threshold)
                length = int(below[0]) if len(below) else len(presence)
                self._counts[dataset][t] += WordCounts.from_pairs([truth], [all_characters[:length]])

    def as_vector(self) -> np.ndarray:
        """All counts, float64, to be summed over workers."""
        return np.concatenate([counts.as_vector() for row in self._counts for counts in row])

    def with_vector(self, vector: np.ndarray) -> Calibration:
        """A calibration of the same data sets with counts from a (summed) vector."""
        summed = Calibration(len(self._counts))
        parts = np.split(vector, len(self._counts) * len(THRESHOLDS))
        flat = [WordCounts.from_vector(part) for part in parts]
        summed._counts = [flat[i : i + len(THRESHOLDS)] for i in range(0, len(flat), len(THRESHOLDS))]
        return summed

    def best(self, names: Sequence[str]) -> tuple[float, dict[str, float]]:
        """Selects the threshold with most words read correctly over all sets; the middle one among equals.

        Args:
          names: of the data sets, in order.

        Returns:
          the threshold, and the scores at it: `val/SCORE` over all sets and `val/NAME/SCORE` for each.
        """
        totals = [sum((row[t] for row in self._counts), WordCounts()) for t in range(len(THRESHOLDS))]
        num_correct = np.asarray([total.num_correct for total in totals])
        ties = np.flatnonzero(num_correct == num_correct.max())
        t = int(ties[len(ties) // 2])
        metrics = totals[t].named(METRIC_PREFIX)
        for name, row in zip(names, self._counts, strict=True):
            metrics |= row[t].named(f"{METRIC_PREFIX}/{name}")
        return float(THRESHOLDS[t]), metrics
