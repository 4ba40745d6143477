"""Readings restricted to a lexicon."""

import pytest

from textscanner.inference.lexicon import load_lexicon
from textscanner.inference.postprocess import Reading


def test_the_nearest_lexicon_word_replaces_a_non_empty_reading(tmp_path):
    (tmp_path / "words.txt").write_text("Starbucks\n\nCafé Noir\n--\nTESCO\n")
    lexicon = load_lexicon(tmp_path / "words.txt")
    assert lexicon.words == ("Starbucks", "Café Noir", "TESCO")
    assert lexicon.nearest(Reading("starhuck", 0.5, ())).text == "Starbucks"
    assert lexicon.nearest(Reading("tesc0", 0.5, ())).text == "TESCO"
    assert lexicon.nearest(Reading("", 0.0, ())).text == ""


def test_an_empty_or_missing_lexicon_is_an_error(tmp_path):
    (tmp_path / "empty.txt").write_text("--\n")
    with pytest.raises(ValueError, match="no word"):
        load_lexicon(tmp_path / "empty.txt")
    with pytest.raises(ValueError, match=r"^lexicon is"):
        load_lexicon(tmp_path / "none.txt")
