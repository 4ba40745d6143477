"""Scores as sums and counts that are merged once, so that uneven shards, replicas and batches add up correctly.

Scoring follows the recognition benchmarks: lower-case, keep [0-9a-z], compare. Labels that are empty after that are
skipped and counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

from textscanner.config import WORD_ACCURACY
from textscanner.text import normalize_for_scoring

SCORES = (WORD_ACCURACY, "one_minus_ned", "char_accuracy", "length_accuracy")


@dataclasses.dataclass(frozen=True)
class WordCounts:
    """Counts over words.

    Attributes:
      num_words: scored labels.
      num_skipped: labels that were empty after normalization.
      num_correct: words read correctly.
      num_length_correct: words read with the correct number of characters.
      relative_distance: sum over words of edit distance / length of the longer text.
      distance, length: sums over words of edit distances and of label lengths, in characters.
    """

    num_words: float = 0
    num_skipped: float = 0
    num_correct: float = 0
    num_length_correct: float = 0
    relative_distance: float = 0.0
    distance: float = 0
    length: float = 0

    def __add__(self, other: WordCounts) -> WordCounts:
        return WordCounts.from_vector(self.as_vector() + other.as_vector())

    @staticmethod
    def from_pairs(truths: Sequence[str], readings: Sequence[str]) -> WordCounts:
        """Scores readings against their labels, in the same order."""
        total = np.zeros(len(dataclasses.fields(WordCounts)))
        for truth, reading in zip(truths, readings, strict=True):
            total += _score(normalize_for_scoring(truth), normalize_for_scoring(reading))
        return WordCounts.from_vector(total)

    def as_vector(self) -> np.ndarray:
        """The fields in order, float64 [7]."""
        return np.array(dataclasses.astuple(self), np.float64)

    @staticmethod
    def from_vector(vector: np.ndarray) -> WordCounts:
        """The counts of a vector from `as_vector`, or of a sum of such vectors."""
        return WordCounts(*(float(v) for v in vector))

    @property
    def word_accuracy(self) -> float:
        """Fraction of words read correctly, 0..1."""
        return self.num_correct / max(self.num_words, 1)

    @property
    def one_minus_ned(self) -> float:
        """1 - NED: one minus the mean over words of edit distance / length of the longer text, 0..1."""
        return 1 - self.relative_distance / max(self.num_words, 1)

    @property
    def char_accuracy(self) -> float:
        """1 - all edits / all characters of the labels, at least 0."""
        return max(0.0, 1 - self.distance / max(self.length, 1))

    @property
    def length_accuracy(self) -> float:
        """Fraction of words read with the correct number of characters, 0..1."""
        return self.num_length_correct / max(self.num_words, 1)

    def named(self, prefix: str) -> dict[str, float]:
        """The scores as `prefix/score`."""
        return {f"{prefix}/{score}": getattr(self, score) for score in SCORES}


def _score(truth: str, reading: str) -> np.ndarray:
    """The fields of WordCounts, float64 [7], for one pair of normalized texts."""
    if not truth:
        return np.array([0, 1, 0, 0, 0, 0, 0], np.float64)
    distance = Levenshtein.distance(truth, reading)
    same_length = len(truth) == len(reading)
    longer = max(len(truth), len(reading))
    return np.array([1, 0, truth == reading, same_length, distance / longer, distance, len(truth)], np.float64)
