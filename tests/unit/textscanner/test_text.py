"""Text normalization."""

from textscanner.text import letters_and_digits, normalize_for_scoring


def test_scoring_keeps_lower_case_letters_and_digits():
    assert normalize_for_scoring("Café-No.7") == "cafno7"


def test_case_sensitive_scoring_keeps_letters_of_both_cases_and_digits():
    assert letters_and_digits("Café-No.7") == "CafNo7"
