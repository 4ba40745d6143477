"""What reading a word gives. Apart from `reader.py` so that it can be used without loading TensorFlow."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ReadCharacter:
    """A character as read: its confidence in 0..1 and its centre in pixels of the image given."""

    text: str
    confidence: float
    x_px: float
    y_px: float


@dataclasses.dataclass(frozen=True)
class Reading:
    """A word as read; `confidence` is the product over its characters, 0 for an empty reading."""

    text: str
    confidence: float
    characters: tuple[ReadCharacter, ...]
