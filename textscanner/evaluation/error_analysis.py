"""What a score is made of: per word length, per confused character, per confidence, with case and punctuation.

Like `WordCounts`, everything is a sum of counts: breakdowns of parts add up to that of the whole.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import unicodedata
from collections.abc import Iterable

from rapidfuzz.distance import Levenshtein

from textscanner.evaluation.metrics import WordCounts
from textscanner.text import normalize_for_scoring

CONFIDENCE_BINS = 15  # of the calibration error, equally wide (Guo et al., 2017, section 2)
NOTHING = ""  # stands in a confusion for a character that is not there

_NOT_ALPHANUMERIC = re.compile("[^0-9A-Za-z]")


@dataclasses.dataclass(frozen=True)
class ConfidenceBin:
    """Words whose confidence lies in one bin: how many, how many read right, the sum of their confidences."""

    num_words: int = 0
    num_correct: int = 0
    confidence: float = 0.0

    def __add__(self, other: ConfidenceBin) -> ConfidenceBin:
        return ConfidenceBin(
            self.num_words + other.num_words, self.num_correct + other.num_correct, self.confidence + other.confidence
        )


@dataclasses.dataclass(frozen=True)
class ErrorAnalysis:
    """Counts over words.

    Attributes:
      counts: the field's standard score.
      num_cased, num_exact: words read right with case, and with case and punctuation (of those with any truth).
      num_labelled: words with any truth.
      by_length: the standard score by the truth's number of letters and digits.
      confusions: how often a truth's character was read as another; NOTHING where one was missed or made up.
      bins: by confidence, CONFIDENCE_BINS of them over 0..1.
    """

    counts: WordCounts = dataclasses.field(default_factory=WordCounts)
    num_labelled: int = 0
    num_cased: int = 0
    num_exact: int = 0
    by_length: collections.Counter[tuple[int, bool]] = dataclasses.field(default_factory=collections.Counter)
    confusions: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    bins: tuple[ConfidenceBin, ...] = (ConfidenceBin(),) * CONFIDENCE_BINS

    def __add__(self, other: ErrorAnalysis) -> ErrorAnalysis:
        return ErrorAnalysis(
            self.counts + other.counts,
            self.num_labelled + other.num_labelled,
            self.num_cased + other.num_cased,
            self.num_exact + other.num_exact,
            self.by_length + other.by_length,
            self.confusions + other.confusions,
            tuple(a + b for a, b in zip(self.bins, other.bins, strict=True)),
        )

    @staticmethod
    def of(rows: Iterable[tuple[str, str, float]]) -> ErrorAnalysis:
        """The error_analysis of (truth, reading, confidence in 0..1) rows."""
        rows = list(rows)
        by_length: collections.Counter[tuple[int, bool]] = collections.Counter()
        confusions: collections.Counter[tuple[str, str]] = collections.Counter()
        bins = [ConfidenceBin()] * CONFIDENCE_BINS
        for truth, reading, confidence in rows:
            wanted, read = normalize_for_scoring(truth), normalize_for_scoring(reading)
            if not wanted:
                continue
            right = wanted == read
            by_length[len(wanted), right] += 1
            confusions.update(_confusions(wanted, read))
            at = min(int(confidence * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)
            bins[at] += ConfidenceBin(1, int(right), confidence)
        exact = [(_composed(truth), _composed(reading)) for truth, reading, _ in rows]
        cased = [tuple(_NOT_ALPHANUMERIC.sub("", text) for text in pair) for pair in exact]
        return ErrorAnalysis(
            WordCounts.from_pairs([truth for truth, _, _ in rows], [reading for _, reading, _ in rows]),
            sum(truth != "" for truth, _ in exact),
            sum(truth == reading != "" for truth, reading in cased),
            sum(truth == reading != "" for truth, reading in exact),
            by_length,
            confusions,
            tuple(bins),
        )

    @property
    def cased_accuracy(self) -> float:
        """Share of words whose letters and digits are right, case included, 0..1."""
        return self.num_cased / max(self.counts.num_words, 1)

    @property
    def exact_accuracy(self) -> float:
        """Share of words read as labelled, case and punctuation included, 0..1."""
        return self.num_exact / max(self.num_labelled, 1)

    @property
    def calibration_error(self) -> float:
        """ECE: the mean over words of their bin's |accuracy - confidence| (Guo et al., 2017, Eq. 5), 0..1."""
        gaps = sum(abs(b.num_correct - b.confidence) for b in self.bins)
        return gaps / max(sum(b.num_words for b in self.bins), 1)

    def lengths(self) -> list[tuple[int, int, float]]:
        """(number of characters, words, word accuracy), shortest first."""
        found = sorted({length for length, _ in self.by_length})
        totals = [(n, self.by_length[n, True] + self.by_length[n, False]) for n in found]
        return [(n, total, self.by_length[n, True] / total) for n, total in totals]

    def as_dict(self) -> dict[str, object]:
        """What evaluation files hold beside the standard figures."""
        return {
            "case_sensitive_accuracy": self.cased_accuracy,
            "exact_accuracy": self.exact_accuracy,
            "expected_calibration_error": self.calibration_error,
            "by_length": [{"characters": n, "words": t, "word_accuracy": a} for n, t, a in self.lengths()],
            "confusions": [{"truth": t, "read": r, "count": n} for (t, r), n in self.confusions.most_common()],
            "reliability": [dataclasses.asdict(b) for b in self.bins],
        }


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text.strip())


def _confusions(truth: str, reading: str) -> list[tuple[str, str]]:
    """The edits of a shortest alignment as (truth's character, read character)."""
    found = []
    for edit in Levenshtein.editops(truth, reading):
        wanted = NOTHING if edit.tag == "insert" else truth[edit.src_pos]
        read = NOTHING if edit.tag == "delete" else reading[edit.dest_pos]
        found.append((wanted, read))
    return found
