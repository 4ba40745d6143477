"""`metadata.json` of an exported model: what a program needs to know to use it."""

from __future__ import annotations

from typing import Any

from textscanner import __version__
from textscanner.charset import FIRST_CHARACTER_ID, UNKNOWN_CHARACTER
from textscanner.data.images import PAD_VALUE
from textscanner.inference.export_outputs import EXPORT_OUTPUTS, INPUT_NAME
from textscanner.inference.reader import Reader

METADATA_NAME = "metadata.json"


def export_metadata(reader: Reader, weights: str) -> dict[str, Any]:
    """The metadata of an exported reader, JSON-compatible.

    Args:
      reader: the exported network.
      weights: how the weights are stored: float32, float16 or int8.
    """
    model = reader.config.model
    return {
        "textscanner_version": __version__,
        "step": reader.step,
        "weights": weights,
        "input": {
            "name": INPUT_NAME,
            "dtype": "uint8",
            "shape": ["batch", model.height_px, model.width_px, 3],
            "colours": "RGB, 0..255, not normalized",
            "resize": model.resize,
            "max_stretch": model.max_stretch,
            "pad_value": PAD_VALUE,
        },
        "outputs": {output.name: output.description for output in EXPORT_OUTPUTS},
        "characters": reader.charset.characters,
        "first_character_id": FIRST_CHARACTER_ID,
        "unknown_character": UNKNOWN_CHARACTER,
        "case_sensitive": reader.charset.case_sensitive,
        "threshold": reader.threshold,
    }
