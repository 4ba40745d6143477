"""From word images to readings, whatever runs the network. Loads no TensorFlow, so that ONNX Runtime starts at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from textscanner.charset import Charset
from textscanner.config import ModelConfig
from textscanner.images import Fit, fit

READ_BATCH = 64


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


class DecodedArrays(Protocol):
    """What a network gives for a batch: `textscanner.decode.Decoded` as NumPy arrays, or as much of it."""

    @property
    def ids(self) -> np.ndarray:
        """int32 [B, N]."""

    @property
    def confidences(self) -> np.ndarray:
        """float32 [B, N]."""

    @property
    def centres(self) -> np.ndarray:
        """float32 [B, N, 2], x y in pixels of the network's input."""

    @property
    def word_confidence(self) -> np.ndarray:
        """float32 [B]."""


def read_images(
    images: Sequence[np.ndarray],
    model: ModelConfig,
    charset: Charset,
    run: Callable[[np.ndarray], DecodedArrays],
) -> list[Reading]:
    """A reading per image, uint8 RGB [H, W, 3] of any size, in order; `run` takes up to READ_BATCH fitted ones."""
    readings: list[Reading] = []
    for start in range(0, len(images), READ_BATCH):
        fitted = [fit(image, model) for image in images[start : start + READ_BATCH]]
        decoded = run(np.stack([pixels for pixels, _ in fitted]))
        readings += [_reading(decoded, i, how, charset) for i, (_, how) in enumerate(fitted)]
    return readings


def _reading(decoded: DecodedArrays, i: int, how: Fit, charset: Charset) -> Reading:
    text = charset.decode(decoded.ids[i])
    characters = tuple(
        ReadCharacter(
            character,
            float(decoded.confidences[i, k]),
            float(decoded.centres[i, k, 0] / how.scale_x),
            float(decoded.centres[i, k, 1] / how.scale_y),
        )
        for k, character in enumerate(text)
    )
    return Reading(text, float(decoded.word_confidence[i]), characters)
