"""Outputs of an exported network: names, types and meanings, stated once. Imports no TensorFlow."""

from __future__ import annotations

from typing import NamedTuple

INPUT_NAME = "image"


class ExportOutput(NamedTuple):
    """One output of an exported network.

    Attributes:
      name: of the output in the file.
      field: of `textscanner.inference.decode.Decoded` that it holds.
      description: dtype, shape, range and meaning, as written into the metadata.
    """

    name: str
    field: str
    description: str


EXPORT_OUTPUTS = (
    ExportOutput(
        "ids", "ids", "int32 [batch, positions]: 0 after the end of the word, 1 unknown, then the characters in order"
    ),
    ExportOutput("confidences", "confidences", "float32 [batch, positions], 0..1"),
    ExportOutput(
        "positions", "centres", "float32 [batch, positions, 2]: centre x, y of each character in pixels of the input"
    ),
    ExportOutput("word_confidence", "word_confidence", "float32 [batch], 0..1: product of the confidences"),
    ExportOutput(
        "scores", "scores", "float32 [batch, positions, ids]: share of each id at every position, for a word prior"
    ),
    ExportOutput(
        "presence", "presence", "float32 [batch, positions], 0..1: how certain it is that the position exists"
    ),
)
OUTPUT_NAMES = tuple(output.name for output in EXPORT_OUTPUTS)
