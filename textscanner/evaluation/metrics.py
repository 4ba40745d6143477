"""Scores as sums and counts that are merged once, so that uneven shards, replicas and batches add up correctly.

The main score is that of the recognition benchmarks: lower-case, keep [0-9a-z], compare. Labels that are empty after
that are skipped and counted. Two stricter word accuracies stand beside it, over labels whose case is known: letters and
digits with their case, and the whole text, punctuation included.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

from textscanner.config import WORD_ACCURACY
from textscanner.data.annotations import clean_text
from textscanner.text import letters_and_digits, normalize_for_scoring

SCORES = (
    WORD_ACCURACY,
    "word_accuracy_cased",
    "word_accuracy_exact",
    "one_minus_ned",
    "char_accuracy",
    "length_accuracy",
)


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
      num_cased: labels of known case that have a letter or digit.
      num_cased_correct: of these, words whose letters and digits are read correctly, case included.
      num_exact: labels of known case that are not empty.
      num_exact_correct: of these, words that are read exactly as labelled, case and punctuation included.
    """

    num_words: float = 0
    num_skipped: float = 0
    num_correct: float = 0
    num_length_correct: float = 0
    relative_distance: float = 0.0
    distance: float = 0
    length: float = 0
    num_cased: float = 0
    num_cased_correct: float = 0
    num_exact: float = 0
    num_exact_correct: float = 0

    def __add__(self, other: WordCounts) -> WordCounts:
        return WordCounts.from_vector(self.as_vector() + other.as_vector())

    @staticmethod
    def from_pairs(
        truths: Sequence[str], readings: Sequence[str], case_known: Iterable[bool] | None = None
    ) -> WordCounts:
        """Scores readings against their labels, in the same order; arguments as for `score_pairs`."""
        return WordCounts.from_vector(score_pairs(truths, readings, case_known).sum(0))

    def as_vector(self) -> np.ndarray:
        """The fields in order, float64 [NUM_FIELDS]."""
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
    def word_accuracy_cased(self) -> float:
        """Fraction of words of known case whose letters and digits are read correctly, case included, 0..1."""
        return self.num_cased_correct / max(self.num_cased, 1)

    @property
    def word_accuracy_exact(self) -> float:
        """Fraction of words of known case that are read exactly as labelled, punctuation included, 0..1."""
        return self.num_exact_correct / max(self.num_exact, 1)

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


NUM_FIELDS = len(dataclasses.fields(WordCounts))


def score_pairs(truths: Sequence[str], readings: Sequence[str], case_known: Iterable[bool] | None = None) -> np.ndarray:
    """The counts of each pair, to be summed.

    Args:
      truths: labels, B of them.
      readings: as many texts, in the same order.
      case_known: whether the case of each label is known; None if it is for all. The others count in no case-sensitive
        score.

    Returns:
      float64 [B, NUM_FIELDS], fields of WordCounts in order.
    """
    known = itertools.repeat(True, len(truths)) if case_known is None else case_known
    rows = [_score(*row) for row in zip(truths, readings, known, strict=True)]
    return np.array(rows, np.float64).reshape(-1, NUM_FIELDS)


def _score(truth: str, reading: str, case_known: bool) -> tuple[float, ...]:
    """The fields of WordCounts for one pair."""
    benchmark = _score_benchmark(normalize_for_scoring(truth), normalize_for_scoring(reading))
    case = _score_case(clean_text(truth), clean_text(reading)) if case_known else (0, 0, 0, 0)
    return (*benchmark, *case)


def _score_benchmark(truth: str, reading: str) -> tuple[float, ...]:
    """The fields up to `length` for one pair of texts in the benchmarks' normalization."""
    if not truth:
        return (0, 1, 0, 0, 0, 0, 0)
    distance = Levenshtein.distance(truth, reading)
    same_length = len(truth) == len(reading)
    longer = max(len(truth), len(reading))
    return (1, 0, truth == reading, same_length, distance / longer, distance, len(truth))


def _score_case(truth: str, reading: str) -> tuple[float, ...]:
    """The fields from `num_cased` on for one pair in NFC."""
    cased = letters_and_digits(truth)
    return (cased != "", cased == letters_and_digits(reading) != "", truth != "", truth == reading != "")
