"""Texts that are rendered."""

from textscanner.render.fonts import in_heldout_words
from textscanner.render.word_source import words


def test_heldout_words_are_not_among_training_words():
    train, heldout = set(words("train")[0]), set(words("heldout")[0])
    assert train and heldout and not train & heldout
    assert in_heldout_words("Word") == in_heldout_words("WORD")
