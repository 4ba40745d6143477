"""Text normalization."""

from textscanner.text import normalize_for_scoring


def test_scoring_keeps_lower_case_letters_and_digits():
    assert normalize_for_scoring("Café-No.7") == "cafno7"
