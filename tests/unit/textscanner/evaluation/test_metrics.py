"""Scores against figures worked out by hand."""

import numpy as np
import pytest

from textscanner.evaluation.metrics import NUM_FIELDS, WordCounts, score_pairs

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


@pytest.mark.parametrize(
    ("truth", "reading", "correct", "cased", "exact"),
    [
        ("HOTEL!", "HOTEL!", 1, 1, 1),
        ("HOTEL!", "HOTEL", 1, 1, 0),
        ("HOTEL!", "hotel!", 1, 0, 0),
        ("HOTEL!", "MOTEL!", 0, 0, 0),
        ("Cafe\N{COMBINING ACUTE ACCENT}", "Café", 0, 1, 1),  # the same text in two Unicode forms
        ("HOTEL", "", 0, 0, 0),
    ],
)
def test_three_word_accuracies_of_one_word(truth, reading, correct, cased, exact):
    counts = WordCounts.from_pairs([truth], [reading])
    assert (counts.word_accuracy, counts.word_accuracy_cased, counts.word_accuracy_exact) == (correct, cased, exact)
    assert (counts.num_cased, counts.num_exact) == (1, 1)


def test_labels_of_unknown_case_count_in_the_benchmark_score_only():
    counts = WordCounts.from_pairs(["HOTEL", "Bar", "x"], ["hotel", "Bar", "X"], [False, True, False])
    assert counts.word_accuracy == 1.0
    assert (counts.num_words, counts.num_cased, counts.num_exact) == (3, 1, 1)
    assert counts.word_accuracy_cased == counts.word_accuracy_exact == 1.0


def test_punctuation_alone_counts_in_the_exact_score_only():
    counts = WordCounts.from_pairs(["&", "", "7"], ["&", "", "7"])
    assert (counts.num_words, counts.num_skipped, counts.num_cased, counts.num_exact) == (1, 2, 1, 2)
    assert counts.word_accuracy_exact == 1.0


def test_scores_of_no_pairs():
    assert score_pairs([], []).shape == (0, NUM_FIELDS)
    assert WordCounts.from_pairs([], []) == WordCounts()
