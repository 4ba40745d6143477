"""Scores as sums and counts, merged once: uneven shards, replicas and batches add up right (spec section 9).

The field's standard score: lower-case, keep [0-9a-z], compare. Truths that are empty then are skipped and counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

from textscanner.text import normalize_for_scoring

SCORES = ("word_accuracy", "one_minus_ned", "char_accuracy", "length_accuracy")


@dataclasses.dataclass(frozen=True)
class WordCounts:
    """Counts over words.

    Attributes:
      num_words, num_skipped: scored truths, and truths that were empty after normalisation.
      num_correct, num_length_correct: words read right, and words read with the right number of characters.
      relative_distance: sum over words of edit distance / longer length.
      distance, length: sums over words of edit distances and of the truths' lengths.
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
        """The counts of readings against their truths, in the same order."""
        total = np.zeros(len(dataclasses.fields(WordCounts)))
        for truth, reading in zip(truths, readings, strict=True):
            total += _score(normalize_for_scoring(truth), normalize_for_scoring(reading))
        return WordCounts.from_vector(total)

    def as_vector(self) -> np.ndarray:
        """The fields in order, float64."""
        return np.array(dataclasses.astuple(self), np.float64)

    @staticmethod
    def from_vector(vector: np.ndarray) -> WordCounts:
        """The counts of such a vector."""
        return WordCounts(*(float(v) for v in vector))

    @property
    def word_accuracy(self) -> float:
        """Share of words read right, 0..1."""
        return self.num_correct / max(self.num_words, 1)

    @property
    def one_minus_ned(self) -> float:
        """1 - the mean of edit distance / longer length, 0..1."""
        return 1 - self.relative_distance / max(self.num_words, 1)

    @property
    def char_accuracy(self) -> float:
        """1 - all edits / all characters, not below 0."""
        return max(0.0, 1 - self.distance / max(self.length, 1))

    @property
    def length_accuracy(self) -> float:
        """Share of words read with the right number of characters, 0..1."""
        return self.num_length_correct / max(self.num_words, 1)

    def named(self, prefix: str) -> dict[str, float]:
        """The scores as `prefix/score`."""
        return {f"{prefix}/{score}": getattr(self, score) for score in SCORES}


def _score(truth: str, reading: str) -> np.ndarray:
    if not truth:
        return np.array([0, 1, 0, 0, 0, 0, 0], np.float64)
    distance = Levenshtein.distance(truth, reading)
    same_length = len(truth) == len(reading)
    longer = max(len(truth), len(reading))
    return np.array([1, 0, truth == reading, same_length, distance / longer, distance, len(truth)], np.float64)
