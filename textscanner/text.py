"""Text normalization that scoring, the lexicon and pictures share."""

from __future__ import annotations

import re

_NOT_ALPHANUMERIC = re.compile("[^0-9a-z]")


def normalize_for_scoring(text: str) -> str:
    """The benchmarks' normalization: lower case, everything but [0-9a-z] removed."""
    return _NOT_ALPHANUMERIC.sub("", text.lower())
