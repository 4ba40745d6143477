"""Upper and lower case of a corrected word."""

import numpy as np
import pytest

from textscanner.charset import ALPHANUMERIC, FIRST_CHARACTER_ID, PRINTABLE_ASCII, Charset
from textscanner.inference.letter_case import LetterCase


def restore(charset, word, positions):
    """`word` in the case that the network's probabilities per position (a dict of characters) suggest."""
    probabilities = np.zeros((len(positions) + 2, charset.num_classes), np.float32)
    for k, shares in enumerate(positions):
        for character, share in shares.items():
            probabilities[k, charset.characters.index(character) + FIRST_CHARACTER_ID] = share
    letter_case = LetterCase(charset)
    ids, confidences = letter_case.restore(letter_case.folded[charset.encode(word)], probabilities)
    return charset.decode(np.append(ids, 0)), confidences.tolist()


@pytest.mark.parametrize("word", ["hotel", "HOTEL", "mcDONALD", "it's", "7Up!", "I"])
def test_letters_that_the_network_reads_keep_their_case(word):
    assert restore(PRINTABLE_ASCII, word, [{c: 0.75} for c in word]) == (word, [0.75] * len(word))


@pytest.mark.parametrize(("read", "restored"), [("xBC", "ABC"), ("Xbc", "Abc"), ("xbc", "abc"), ("AxC", "ABC")])
def test_an_unseen_letter_follows_the_other_letters_and_what_stands_in_its_place(read, restored):
    text, confidences = restore(PRINTABLE_ASCII, "abc", [{c: 1.0} for c in read])
    assert text == restored
    assert confidences[read.lower().index("x")] == 0.0


def test_a_charset_without_upper_case_or_without_pairs_has_one_case():
    assert restore(ALPHANUMERIC, "abc", [{"x": 1.0}, {"b": 1.0}, {"c": 1.0}])[0] == "abc"
    mixed = Charset("aBcß", case_sensitive=True)
    assert restore(mixed, "aBß", [{"c": 1.0}, {"c": 1.0}, {"c": 1.0}])[0] == "aBß"
