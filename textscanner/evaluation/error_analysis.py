"""Error analysis: accuracy by word length, confused characters, confidence calibration, case and punctuation.

Like `WordCounts`, everything is a sum of counts: analyses of parts add up to that of the whole.
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

CONFIDENCE_BINS = 15  # of the expected calibration error, equally wide (Guo et al., 2017, section 2)
NOTHING = ""  # in a confusion: no character

_NOT_ALPHANUMERIC = re.compile("[^0-9A-Za-z]")


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
      counts: the benchmarks' scores.
      num_labelled: words whose label is not empty.
      num_cased: words whose letters and digits are read correctly, case included.
      num_exact: words that are read exactly as labelled, case and punctuation included.
      by_length: number of words by (letters and digits of the label, read correctly).
      confusions: number of edits by (label's character, read character); NOTHING for insertions and deletions.
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
            counts=self.counts + other.counts,
            num_labelled=self.num_labelled + other.num_labelled,
            num_cased=self.num_cased + other.num_cased,
            num_exact=self.num_exact + other.num_exact,
            by_length=self.by_length + other.by_length,
            confusions=self.confusions + other.confusions,
            bins=tuple(a + b for a, b in zip(self.bins, other.bins, strict=True)),
        )

    @staticmethod
    def from_rows(rows: Iterable[tuple[str, str, float]]) -> ErrorAnalysis:
        """Analyzes (label, reading, confidence in 0..1) rows."""
        rows = list(rows)
        by_length: collections.Counter[tuple[int, bool]] = collections.Counter()
        confusions: collections.Counter[tuple[str, str]] = collections.Counter()
        bins = [ConfidenceBin()] * CONFIDENCE_BINS
        for truth, reading, confidence in rows:
            label, read = normalize_for_scoring(truth), normalize_for_scoring(reading)
            if not label:
                continue
            is_correct = label == read
            by_length[len(label), is_correct] += 1
            confusions.update(_confusions(label, read))
            index = min(int(confidence * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)
            bins[index] += ConfidenceBin(1, int(is_correct), confidence)
        exact = [(_composed(truth), _composed(reading)) for truth, reading, _ in rows]
        cased = [tuple(_NOT_ALPHANUMERIC.sub("", text) for text in pair) for pair in exact]
        return ErrorAnalysis(
            counts=WordCounts.from_pairs([truth for truth, _, _ in rows], [reading for _, reading, _ in rows]),
            num_labelled=sum(truth != "" for truth, _ in exact),
            num_cased=sum(truth == reading != "" for truth, reading in cased),
            num_exact=sum(truth == reading != "" for truth, reading in exact),
            by_length=by_length,
            confusions=confusions,
            bins=tuple(bins),
        )

    @property
    def cased_accuracy(self) -> float:
        """Fraction of words whose letters and digits are read correctly, case included, 0..1."""
        return self.num_cased / max(self.counts.num_words, 1)

    @property
    def exact_accuracy(self) -> float:
        """Fraction of words read exactly as labelled, case and punctuation included, 0..1."""
        return self.num_exact / max(self.num_labelled, 1)

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
        """JSON-compatible figures besides the benchmarks' scores."""
        return {
            "case_sensitive_accuracy": self.cased_accuracy,
            "exact_accuracy": self.exact_accuracy,
            "expected_calibration_error": self.calibration_error,
            "by_length": [{"characters": n, "words": t, "word_accuracy": a} for n, t, a in self.lengths()],
            "confusions": [{"truth": t, "read": r, "count": n} for (t, r), n in self.confusions.most_common()],
            "reliability": [dataclasses.asdict(b) for b in self.bins],
        }


def _composed(text: str) -> str:
    """The form in which labels are stored: NFC, without surrounding white space."""
    return unicodedata.normalize("NFC", text.strip())


def _confusions(truth: str, reading: str) -> list[tuple[str, str]]:
    """The edits of a shortest alignment as (label's character, read character)."""
    confusions = []
    for edit in Levenshtein.editops(truth, reading):
        label_character = NOTHING if edit.tag == "insert" else truth[edit.src_pos]
        read_character = NOTHING if edit.tag == "delete" else reading[edit.dest_pos]
        confusions.append((label_character, read_character))
    return confusions
