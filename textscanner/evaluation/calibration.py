"""Calibration of the decoder's threshold: scores under every candidate at once, and the best candidate.

The decoder ends a word at the first position whose presence is below the threshold (`inference/decode.py`). One pass
over the validation words gives the presence of every position, from which the readings under each candidate follow. The
reported scores are those at the selected candidate: one parameter is fitted on the validation set, which makes them
slightly optimistic.

Shapes: B batch, N positions, T candidate thresholds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from textscanner.charset import Charset
from textscanner.evaluation.metrics import NUM_FIELDS, WordCounts, score_pairs
from textscanner.inference.decode import Decoded

THRESHOLDS = np.round(np.arange(0.05, 0.80, 0.05), 2)
METRIC_PREFIX = "val"


class Calibration:
    """Word counts per data set and candidate threshold: float64 [data sets, T, NUM_FIELDS]."""

    def __init__(self, num_datasets: int) -> None:
        self._counts = np.zeros((num_datasets, len(THRESHOLDS), NUM_FIELDS))

    def add(
        self,
        dataset: int,
        truths: Sequence[str],
        decoded: Decoded,
        charset: Charset,
        case_known: Iterable[bool] | None = None,
    ) -> None:
        """Counts a batch.

        Args:
          dataset: index of the data set.
          truths: labels, B of them.
          decoded: NumPy arrays with B rows.
          charset: the network's characters.
          case_known: whether the case of each label is known; None if it is for all.
        """
        known = itertools.repeat(True, len(truths)) if case_known is None else case_known
        all_lengths = _lengths(decoded.presence)
        for truth, ids, lengths, is_known in zip(truths, decoded.raw_ids, all_lengths, known, strict=True):
            characters = "".join(charset.decode(i[None]) for i in ids)
            # Most thresholds cut a word at the same position: each distinct reading is scored once.
            cuts, cut_of = np.unique(lengths, return_inverse=True)
            scores = score_pairs(
                [truth] * len(cuts), [characters[:cut] for cut in cuts.tolist()], [is_known] * len(cuts)
            )
            self._counts[dataset] += scores[cut_of]

    def as_vector(self) -> np.ndarray:
        """All counts, float64, to be summed over workers."""
        return self._counts.ravel()

    def with_vector(self, vector: np.ndarray) -> Calibration:
        """A calibration of the same data sets with counts from a (summed) vector."""
        summed = Calibration(len(self._counts))
        summed._counts = vector.reshape(self._counts.shape)
        return summed

    def best(self, names: Sequence[str]) -> tuple[float, dict[str, float]]:
        """Selects the threshold with most words read correctly over all sets; the middle one among equals.

        Args:
          names: of the data sets, in order.

        Returns:
          the threshold, and the scores at it: `val/SCORE` over all sets and `val/NAME/SCORE` for each.
        """
        totals = [WordCounts.from_vector(counts) for counts in self._counts.sum(0)]
        num_correct = np.asarray([total.num_correct for total in totals])
        ties = np.flatnonzero(num_correct == num_correct.max())
        t = int(ties[len(ties) // 2])
        metrics = totals[t].named(METRIC_PREFIX)
        for name, counts in zip(names, self._counts[:, t], strict=True):
            metrics |= WordCounts.from_vector(counts).named(f"{METRIC_PREFIX}/{name}")
        return float(THRESHOLDS[t]), metrics


def _lengths(presence: np.ndarray) -> np.ndarray:
    """Length of each word under each candidate threshold, int [B, T], from presences float32 [B, N]."""
    is_below = presence[:, None, :] < THRESHOLDS[:, None]  # [B, T, N]
    return np.asarray(np.where(is_below.any(-1), is_below.argmax(-1), presence.shape[1]))
