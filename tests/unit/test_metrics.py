"""Scores against figures worked out by hand, and threshold calibration."""

import numpy as np
import pytest

from textscanner.charset import ALPHANUMERIC
from textscanner.config import BEST_METRIC
from textscanner.evaluation.calibration import THRESHOLDS, Calibration
from textscanner.evaluation.metrics import WordCounts
from textscanner.inference.decode import Decoded
from textscanner.text import normalize_for_scoring

# truth, reading: right, right after normalisation, one substitution, two missing, empty truth, nothing read
PAIRS = [("House", "house"), ("it's", "ITS!"), ("cat", "cut"), ("apple", "app"), ("--", "x"), ("no", "")]


def test_hand_made_set():
    counts = WordCounts.from_pairs(*zip(*PAIRS, strict=True))
    assert (counts.num_words, counts.num_skipped) == (5, 1)
    assert counts.word_accuracy == pytest.approx(2 / 5)
    assert counts.length_accuracy == pytest.approx(3 / 5)
    assert counts.one_minus_ned == pytest.approx(1 - (0 + 0 + 1 / 3 + 2 / 5 + 1) / 5)
    assert counts.char_accuracy == pytest.approx(1 - (1 + 2 + 2) / (5 + 3 + 3 + 5 + 2))


def test_seven_of_eight():
    truths = list("abcdefgh")
    assert WordCounts.from_pairs(truths, [*truths[:7], "x"]).word_accuracy == 0.875


def test_parts_add_up_to_the_whole():
    whole = WordCounts.from_pairs(*zip(*PAIRS, strict=True))
    parts = sum((WordCounts.from_pairs([t], [r]) for t, r in PAIRS), WordCounts())
    np.testing.assert_allclose(parts.as_vector(), whole.as_vector())
    assert WordCounts().word_accuracy == 0.0


def test_char_accuracy_does_not_fall_below_zero():
    assert WordCounts.from_pairs(["a"], ["xyzxyz"]).char_accuracy == 0.0


def test_normalisation():
    assert normalize_for_scoring("Café-No.7") == "cafno7"


def test_the_threshold_that_reads_most_words_is_chosen():
    # Four words "ab": three want a threshold in (0.22, 0.41], one in (0.52, 0.56].
    presence = np.array([[0.9, 0.41, 0.22], [0.8, 0.45, 0.12], [0.9, 0.6, 0.21], [0.9, 0.56, 0.52]], np.float32)
    raw = np.tile(np.array([12, 13, 14], np.int32), (4, 1))
    nothing = np.zeros((4, 3, 2))
    decoded = Decoded(raw, presence, nothing, nothing, presence, raw, presence[:, 0])
    halves = []
    for part in (slice(0, 2), slice(2, 4)):
        half = Calibration(2)
        half.add(0, ["ab", "AB"], Decoded(*(v[part] for v in decoded)), ALPHANUMERIC)
        halves.append(half.as_vector())
    merged = Calibration(2).with_vector(halves[0] + halves[1])
    threshold, metrics = merged.best(["one", "none"])
    assert 0.22 < threshold <= 0.41 and threshold in THRESHOLDS
    assert metrics["val/one/word_accuracy"] == metrics[BEST_METRIC] == 0.75
    assert metrics["val/none/word_accuracy"] == 0.0
