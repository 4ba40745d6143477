"""Scores against figures worked out by hand."""

import numpy as np
import pytest

from textscanner.evaluation.metrics import WordCounts

# truth, reading: right, right after normalisation, one substitution, two missing, empty truth, nothing read
PAIRS = [("House", "house"), ("it's", "ITS!"), ("cat", "cut"), ("apple", "app"), ("--", "x"), ("no", "")]


def test_scores_of_a_hand_made_set():
    counts = WordCounts.from_pairs(*zip(*PAIRS, strict=True))
    assert (counts.num_words, counts.num_skipped) == (5, 1)
    assert counts.word_accuracy == pytest.approx(2 / 5)
    assert counts.length_accuracy == pytest.approx(3 / 5)
    assert counts.one_minus_ned == pytest.approx(1 - (0 + 0 + 1 / 3 + 2 / 5 + 1) / 5)
    assert counts.char_accuracy == pytest.approx(1 - (1 + 2 + 2) / (5 + 3 + 3 + 5 + 2))


def test_word_accuracy_of_seven_out_of_eight():
    truths = list("abcdefgh")
    assert WordCounts.from_pairs(truths, [*truths[:7], "x"]).word_accuracy == 0.875


def test_counts_of_parts_add_up():
    whole = WordCounts.from_pairs(*zip(*PAIRS, strict=True))
    parts = sum((WordCounts.from_pairs([t], [r]) for t, r in PAIRS), WordCounts())
    np.testing.assert_allclose(parts.as_vector(), whole.as_vector())
    assert WordCounts().word_accuracy == 0.0


def test_char_accuracy_does_not_fall_below_zero():
    assert WordCounts.from_pairs(["a"], ["xyzxyz"]).char_accuracy == 0.0
