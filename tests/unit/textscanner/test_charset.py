"""Class ids of characters."""

import dataclasses
import pickle
import timeit

import numpy as np
import pytest

from textscanner.charset import ALPHANUMERIC, PRINTABLE_ASCII, UNKNOWN_CHARACTER, Charset, load_charset
from textscanner.errors import UserError


def test_decoding_inverts_encoding():
    assert ALPHANUMERIC.num_classes == 38
    assert ALPHANUMERIC.decode(ALPHANUMERIC.encode(ALPHANUMERIC.characters)) == ALPHANUMERIC.characters
    assert ALPHANUMERIC.encode("0aZ").tolist() == [2, 12, 37]
    cased = Charset("aA", case_sensitive=True)
    assert cased.decode(cased.encode("AaA")) == "AaA"


def test_unknown_characters_are_marked_and_background_ends_a_word():
    assert ALPHANUMERIC.encode("aéb").tolist() == [12, 1, 13]
    assert ALPHANUMERIC.decode(np.array([12, 1, 0, 13])) == "a" + UNKNOWN_CHARACTER
    assert ALPHANUMERIC.unknown_characters("A-é!") == ["é"]


def test_punctuation_has_no_position_unless_the_charset_contains_it():
    text = "Don't-£5!"
    assert ALPHANUMERIC.decode(ALPHANUMERIC.encode(text)) == "dont5"
    assert "".join(c for c, encoded in zip(text, ALPHANUMERIC.has_position(text), strict=True) if encoded) == "Dont5"
    assert ALPHANUMERIC.unknown_characters("Don't £5 café") == [" ", "é"]
    marks = Charset("dont'", skip_punctuation=True)
    assert marks.decode(marks.encode("don't!")) == "don't"


@pytest.mark.parametrize(("characters", "cased"), [("", False), ("aa", False), ("a b", False), ("aB", False)])
def test_invalid_charsets_are_refused(characters, cased):
    with pytest.raises(UserError, match="charset"):
        Charset(characters, cased)


def test_a_charset_is_read_from_a_file(tmp_path):
    path = tmp_path / "letters.txt"
    path.write_text("abc\nÄß\n", "utf-8")
    assert load_charset(path) == Charset("abcÄß", case_sensitive=True)
    with pytest.raises(UserError, match=r"missing\.txt"):
        load_charset(tmp_path / "missing.txt")


def test_printable_ascii_keeps_case_and_punctuation():
    assert PRINTABLE_ASCII.num_classes == 96
    assert PRINTABLE_ASCII.decode(PRINTABLE_ASCII.encode("HOTEL! (it's €5)".replace(" ", ""))) == (
        f"HOTEL!(it's{UNKNOWN_CHARACTER}5)"
    )


def test_other_case_ids_pair_upper_and_lower_case():
    other = PRINTABLE_ASCII.other_case_ids
    ids = PRINTABLE_ASCII.encode("Street-7")
    assert PRINTABLE_ASCII.decode(other[ids]) == "sTREET-7"
    np.testing.assert_array_equal(other[other], np.arange(PRINTABLE_ASCII.num_classes))
    np.testing.assert_array_equal(ALPHANUMERIC.other_case_ids, np.arange(ALPHANUMERIC.num_classes))
    lone = Charset("aßıB", case_sensitive=True)
    np.testing.assert_array_equal(lone.other_case_ids, np.arange(lone.num_classes))


def test_encoding_does_not_depend_on_the_size_of_the_charset():
    many = Charset("".join(chr(0x4E00 + i) for i in range(6_600)))
    text = many.characters[100:108]
    assert many.decode(many.encode(text)) == text
    few = Charset(text)
    slow, fast = (min(timeit.repeat(lambda c=c: c.encode(text), number=50, repeat=5)) for c in (many, few))
    assert slow < 10 * fast  # building the index for each call takes a hundred times as long
    assert pickle.loads(pickle.dumps(many)) == many
    assert len(pickle.dumps(many)) < 25_000
    assert dataclasses.asdict(many)["characters"] == many.characters
