"""Error analysis: accuracy by word length, confused characters, confidence calibration.

Like `WordCounts`, everything is a sum of counts: analyses of parts add up to that of the whole.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

from textscanner.evaluation.metrics import WordCounts
from textscanner.text import normalize_for_scoring

CONFIDENCE_BINS = 15  # of the expected calibration error, equally wide (Guo et al., 2017, section 2)
NOTHING = ""  # in a confusion: no character


class ScoredWord(NamedTuple):
    """A word as labelled and as read.

    Attributes:
      truth: the label.
      reading: the text that was read; empty if none.
      confidence: of the reading, 0..1.
      case_known: whether the case of the label is known.
    """

    truth: str
    reading: str
    confidence: float
    case_known: bool = True


@dataclasses.dataclass(frozen=True)
class ConfidenceBin:
    """Words whose confidence lies in one bin.

    Attributes:
      num_words: words in the bin.
      num_correct: of these, words read correctly.
      confidence: sum of their confidences.
    """

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
      counts: the scores.
      by_length: number of words by (letters and digits of the label, read correctly).
      confusions: number of edits by (label's character, read character); NOTHING for insertions and deletions.
      bins: by confidence, CONFIDENCE_BINS of them over 0..1.
    """

    counts: WordCounts = dataclasses.field(default_factory=WordCounts)
    by_length: collections.Counter[tuple[int, bool]] = dataclasses.field(default_factory=collections.Counter)
    confusions: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    bins: tuple[ConfidenceBin, ...] = (ConfidenceBin(),) * CONFIDENCE_BINS

    def __add__(self, other: ErrorAnalysis) -> ErrorAnalysis:
        return ErrorAnalysis(
            counts=self.counts + other.counts,
            by_length=self.by_length + other.by_length,
            confusions=self.confusions + other.confusions,
            bins=tuple(a + b for a, b in zip(self.bins, other.bins, strict=True)),
        )

    @staticmethod
    def from_words(words: Iterable[ScoredWord]) -> ErrorAnalysis:
        """Analyzes words."""
        words = list(words)
        by_length: collections.Counter[tuple[int, bool]] = collections.Counter()
        confusions: collections.Counter[tuple[str, str]] = collections.Counter()
        bins = [ConfidenceBin()] * CONFIDENCE_BINS
        for word in words:
            label, read = normalize_for_scoring(word.truth), normalize_for_scoring(word.reading)
            if not label:
                continue
            is_correct = label == read
            by_length[len(label), is_correct] += 1
            confusions.update(_confusions(label, read))
            index = min(int(word.confidence * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)
            bins[index] += ConfidenceBin(1, int(is_correct), word.confidence)
        counts = WordCounts.from_pairs(
            [word.truth for word in words], [word.reading for word in words], [word.case_known for word in words]
        )
        return ErrorAnalysis(counts=counts, by_length=by_length, confusions=confusions, bins=tuple(bins))

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: mean over words of |accuracy - confidence| of their bin, 0..1.

        Guo et al., 2017, Eq. 5, with CONFIDENCE_BINS bins.
        """
        gaps = sum(abs(b.num_correct - b.confidence) for b in self.bins)
        return gaps / max(sum(b.num_words for b in self.bins), 1)

    def lengths(self) -> list[tuple[int, int, float]]:
        """(letters and digits of the label, number of words, word accuracy in 0..1), shortest first."""
        lengths = sorted({length for length, _ in self.by_length})
        totals = [(n, self.by_length[n, True] + self.by_length[n, False]) for n in lengths]
        return [(n, total, self.by_length[n, True] / total) for n, total in totals]

    def as_dict(self) -> dict[str, object]:
        """JSON-compatible figures besides the scores."""
        return {
            "expected_calibration_error": self.calibration_error,
            "by_length": [{"characters": n, "words": t, "word_accuracy": a} for n, t, a in self.lengths()],
            "confusions": [{"truth": t, "read": r, "count": n} for (t, r), n in self.confusions.most_common()],
            "reliability": [dataclasses.asdict(b) for b in self.bins],
        }


def _confusions(truth: str, reading: str) -> list[tuple[str, str]]:
    """The edits of a shortest alignment as (label's character, read character)."""
    confusions = []
    for edit in Levenshtein.editops(truth, reading):
        label_character = NOTHING if edit.tag == "insert" else truth[edit.src_pos]
        read_character = NOTHING if edit.tag == "delete" else reading[edit.dest_pos]
        confusions.append((label_character, read_character))
    return confusions
