"""Text normalization for scoring, shared by metrics, lexicon and visualization."""

from __future__ import annotations

import re

_NOT_LETTER_OR_DIGIT = re.compile("[^0-9A-Za-z]")


def normalize_for_scoring(text: str) -> str:
    """The normalization of the recognition benchmarks: lower case, everything but [0-9a-z] removed."""
    return letters_and_digits(text.lower())


def letters_and_digits(text: str) -> str:
    """The case-sensitive counterpart of `normalize_for_scoring`: everything but [0-9A-Za-z] removed."""
    return _NOT_LETTER_OR_DIGIT.sub("", text)
