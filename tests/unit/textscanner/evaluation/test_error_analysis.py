"""Error analysis against figures worked out by hand."""

import numpy as np
import pytest

from textscanner.evaluation.error_analysis import CONFIDENCE_BINS, NOTHING, ErrorAnalysis, ScoredWord

# truth, reading, confidence: as labelled; wrong case; punctuation missing; one substitution; one missed; one made up
WORDS = [
    ScoredWord("House", "House", 0.95),
    ScoredWord("Bar", "bar", 0.9),
    ScoredWord("it's", "its", 0.9),
    ScoredWord("cat", "cot", 0.5),
    ScoredWord("tree", "tre", 0.1),
    ScoredWord("no", "now", 0.0),
    ScoredWord("&", "a", 0.7),
]


def test_error_analysis_of_a_hand_made_set():
    analysis = ErrorAnalysis.from_words(WORDS)
    assert (analysis.counts.num_words, analysis.counts.num_skipped) == (6, 1)
    assert analysis.counts.word_accuracy == pytest.approx(3 / 6)
    assert analysis.counts.word_accuracy_cased == pytest.approx(2 / 6)
    assert analysis.counts.word_accuracy_exact == pytest.approx(1 / 7)
    assert analysis.lengths() == [(2, 1, 0.0), (3, 3, pytest.approx(2 / 3)), (4, 1, 0.0), (5, 1, 1.0)]
    assert analysis.confusions == {("a", "o"): 1, ("e", NOTHING): 1, (NOTHING, "w"): 1}


def test_error_analyses_of_parts_add_up():
    whole, parts = (
        ErrorAnalysis.from_words(WORDS),
        sum((ErrorAnalysis.from_words([word]) for word in WORDS), ErrorAnalysis()),
    )
    assert (parts.counts, parts.confusions, parts.by_length) == (whole.counts, whole.confusions, whole.by_length)
    assert parts.calibration_error == pytest.approx(whole.calibration_error)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    sure = 1 - 0.5 / CONFIDENCE_BINS
    words = [ScoredWord("a", "a" if i < 6 else "b", sure) for i in range(10)]
    assert ErrorAnalysis.from_words(words).calibration_error == pytest.approx(sure - 0.6)
    rng = np.random.default_rng(0)
    honest = [ScoredWord("a", "a" if rng.random() < p else "b", float(p)) for p in rng.random(4000)]
    assert ErrorAnalysis.from_words(honest).calibration_error < 0.04


def test_labels_without_case_count_in_no_case_sensitive_score():
    words = [word._replace(case_known=word.truth in ("House", "Bar")) for word in WORDS]
    counts = ErrorAnalysis.from_words(words).counts
    assert (counts.num_words, counts.num_cased, counts.num_exact) == (6, 2, 2)
    assert counts.word_accuracy_cased == counts.word_accuracy_exact == 1 / 2
