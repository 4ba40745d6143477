"""Text normalization for scoring, shared by metrics, lexicon and visualization."""

from __future__ import annotations

import re

_NOT_ALPHANUMERIC = re.compile("[^0-9a-z]")


def normalize_for_scoring(text: str) -> str:
    """The normalization of the recognition benchmarks: lower case, everything but [0-9a-z] removed."""
    return _NOT_ALPHANUMERIC.sub("", text.lower())
