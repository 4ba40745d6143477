"""Names of what the renderer can vary: difficulties, splits and effects, and the defaults.

Imports nothing, so that `textscanner render --help` shows them at once.
"""

from __future__ import annotations

from typing import Literal, get_args

Difficulty = Literal["easy", "real"]
Split = Literal["train", "heldout", "all"]
Effect = Literal[
    "texture",
    "perspective",
    "arc",
    "spacing",
    "script",
    "long",
    "crop",
    "neighbours",
    "shadow",
    "extrusion",
    "outline",
    "contrast",
    "camera",
]
EFFECTS: tuple[Effect, ...] = get_args(Effect)
"""Effects of `real`; each can be disabled to measure what it contributes (docs/data.md lists what they do)."""

DEFAULT_DIFFICULTY: Difficulty = "real"
DEFAULT_SPLIT: Split = "train"
