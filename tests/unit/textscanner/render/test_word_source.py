"""Texts that are rendered."""

import re

import numpy as np

from textscanner.render.fonts import in_heldout_words
from textscanner.render.word_source import LONG, MAX_LENGTH, draw_text, words


def test_heldout_words_are_not_among_training_words():
    train, heldout = set(words("train")[0]), set(words("heldout")[0])
    assert train and heldout and not train & heldout
    assert in_heldout_words("Word") == in_heldout_words("WORD")


def texts(**kwargs):
    rng = np.random.default_rng(0)
    return [draw_text(rng, split="train", **kwargs) for _ in range(3000)]


def test_addresses_and_long_words_have_their_share():
    without, with_long = texts(), texts(long=True)
    address = re.compile(r"www\.|@|\.com|^[-+()/0-9]{8,}$", re.IGNORECASE)
    shares = [np.mean([bool(address.search(text)) for text in drawn]) for drawn in (without, with_long)]
    assert shares[0] < 0.01 and 0.03 < shares[1] < 0.07
    lengths = [np.array([len(text) for text in drawn]) for drawn in (without, with_long)]
    assert np.mean(lengths[1] >= LONG) > np.mean(lengths[0] >= LONG) + 0.05
    assert lengths[1].max() == MAX_LENGTH and lengths[1].min() >= 1
    assert not any(" " in text for text in with_long)
    assert {char for text in with_long for char in text if char.isascii()} <= {chr(i) for i in range(33, 127)}


def test_plain_texts_have_no_punctuation():
    assert all(text.isalnum() for text in texts(plain=True))
