"""Scores under every candidate threshold at once, and the one that reads most words.

The decoder ends a word at the first position whose strongest cell is below a threshold (spec section 7). One pass over
validation words gives the presence; every candidate's readings follow from them. The reported scores are those at the
chosen candidate: one parameter fitted on the set, which flatters it by little.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from textscanner.charset import Charset
from textscanner.evaluation.metrics import WordCounts
from textscanner.inference.decode import Decoded

THRESHOLDS = np.round(np.arange(0.05, 0.80, 0.05), 2)


class Calibration:
    """Word counts per data set and candidate threshold."""

    def __init__(self, num_datasets: int) -> None:
        self._counts = [[WordCounts() for _ in THRESHOLDS] for _ in range(num_datasets)]

    def add(self, dataset: int, truths: Sequence[str], decoded: Decoded, charset: Charset) -> None:
        """Counts a batch; `decoded` holds NumPy arrays with a row per truth."""
        for row, truth in enumerate(truths):
            presence = decoded.presence[row]
            full = "".join(charset.decode(np.asarray([i])) for i in decoded.raw_ids[row])
            for t, threshold in enumerate(THRESHOLDS):
                below = np.flatnonzero(presence < threshold)
                length = int(below[0]) if len(below) else len(presence)
                self._counts[dataset][t] += WordCounts.from_pairs([truth], [full[:length]])

    def as_vector(self) -> np.ndarray:
        """All counts as float64, to be summed over workers."""
        return np.concatenate([counts.as_vector() for row in self._counts for counts in row])

    def with_vector(self, vector: np.ndarray) -> Calibration:
        """The calibration of such a vector."""
        merged = Calibration(len(self._counts))
        parts = np.split(vector, len(self._counts) * len(THRESHOLDS))
        flat = [WordCounts.from_vector(part) for part in parts]
        merged._counts = [flat[i : i + len(THRESHOLDS)] for i in range(0, len(flat), len(THRESHOLDS))]
        return merged

    def best(self, names: Sequence[str]) -> tuple[float, dict[str, float]]:
        """The threshold that reads most words over all sets (the middle of equals), and the metrics there."""
        totals = [sum((row[t] for row in self._counts), WordCounts()) for t in range(len(THRESHOLDS))]
        correct = np.asarray([total.num_correct for total in totals])
        ties = np.flatnonzero(correct == correct.max())
        t = int(ties[len(ties) // 2])
        metrics = totals[t].named("val")
        for name, row in zip(names, self._counts, strict=True):
            metrics |= row[t].named(f"val/{name}")
        return float(THRESHOLDS[t]), metrics
