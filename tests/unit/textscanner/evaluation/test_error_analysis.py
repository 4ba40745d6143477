"""Error analysis against figures worked out by hand."""

import numpy as np
import pytest

from textscanner.evaluation.error_analysis import CONFIDENCE_BINS, NOTHING, ErrorAnalysis

# truth, reading, confidence: as labelled; wrong case; punctuation missing; one substitution; one missed; one made up
ROWS = [
    ("House", "House", 0.95),
    ("Bar", "bar", 0.9),
    ("it's", "its", 0.9),
    ("cat", "cot", 0.5),
    ("tree", "tre", 0.1),
    ("no", "now", 0.0),
    ("&", "a", 0.7),
]


def test_error_analysis_of_a_hand_made_set():
    analysis = ErrorAnalysis.from_rows(ROWS)
    assert (analysis.counts.num_words, analysis.counts.num_skipped, analysis.num_labelled) == (6, 1, 7)
    assert analysis.counts.word_accuracy == pytest.approx(3 / 6)
    assert analysis.cased_accuracy == pytest.approx(2 / 6)
    assert analysis.exact_accuracy == pytest.approx(1 / 7)
    assert analysis.lengths() == [(2, 1, 0.0), (3, 3, pytest.approx(2 / 3)), (4, 1, 0.0), (5, 1, 1.0)]
    assert analysis.confusions == {("a", "o"): 1, ("e", NOTHING): 1, (NOTHING, "w"): 1}


def test_error_analyses_of_parts_add_up():
    whole, parts = ErrorAnalysis.from_rows(ROWS), sum((ErrorAnalysis.from_rows([row]) for row in ROWS), ErrorAnalysis())
    assert (parts.counts, parts.confusions, parts.by_length) == (whole.counts, whole.confusions, whole.by_length)
    assert parts.calibration_error == pytest.approx(whole.calibration_error)
    assert (parts.cased_accuracy, parts.exact_accuracy) == (whole.cased_accuracy, whole.exact_accuracy)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    sure = 1 - 0.5 / CONFIDENCE_BINS
    rows = [("a", "a" if i < 6 else "b", sure) for i in range(10)]
    assert ErrorAnalysis.from_rows(rows).calibration_error == pytest.approx(sure - 0.6)
    rng = np.random.default_rng(0)
    honest = [("a", "a" if rng.random() < p else "b", float(p)) for p in rng.random(4000)]
    assert ErrorAnalysis.from_rows(honest).calibration_error < 0.04
