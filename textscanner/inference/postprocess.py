"""From word images to readings, whatever runs the network. Loads no TensorFlow, so that ONNX Runtime starts at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from textscanner.charset import Charset
from textscanner.config import ModelConfig
from textscanner.data.images import ResizeInfo, fit
from textscanner.inference.vocabulary import Vocabulary

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
    """A word as read.

    Attributes:
      confidence: 0..1, 0 for an empty reading: the product over its characters, or with a vocabulary how likely the
        text is among all others.
    """

    text: str
    confidence: float
    characters: tuple[ReadCharacter, ...]


class DecodedArrays(Protocol):
    """What a network gives for a batch: `textscanner.inference.decode.Decoded` as NumPy arrays, or as much of it."""

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
    def scores(self) -> np.ndarray:
        """float32 [B, N, C], the share of each class at each position, background 0."""

    @property
    def presence(self) -> np.ndarray:
        """float32 [B, N], how surely each position is there."""

    @property
    def word_confidence(self) -> np.ndarray:
        """float32 [B]."""


def read_images(
    images: Sequence[np.ndarray],
    model: ModelConfig,
    charset: Charset,
    run: Callable[[np.ndarray], DecodedArrays],
    threshold: float,
    vocabulary: Vocabulary | None = None,
) -> list[Reading]:
    """A reading per image, in order.

    Args:
      images: uint8 RGB [H, W, 3] of any size.
      run: reads up to READ_BATCH fitted ones.
      threshold: the one that `run` reads with.
      vocabulary: what words are likely; None reads what the network reads.
    """
    readings: list[Reading] = []
    for start in range(0, len(images), READ_BATCH):
        fitted = [fit(image, model) for image in images[start : start + READ_BATCH]]
        decoded = run(np.stack([pixels for pixels, _ in fitted]))
        for i, (_, how) in enumerate(fitted):
            if vocabulary is None or not decoded.ids[i, 0]:
                ids, confidences, sure = decoded.ids[i], decoded.confidences[i], float(decoded.word_confidence[i])
            else:
                ids, confidences, sure = vocabulary.correct(decoded.scores[i], decoded.presence[i], threshold)
            readings.append(_reading(charset.decode(ids), confidences, sure, decoded.centres[i], how))
    return readings


def _reading(text: str, confidences: np.ndarray, sure: float, centres: np.ndarray, how: ResizeInfo) -> Reading:
    characters = tuple(
        ReadCharacter(
            character,
            float(confidences[k]),
            float(centres[k, 0] / how.scale_x),
            float(centres[k, 1] / how.scale_y),
        )
        for k, character in enumerate(text)
    )
    return Reading(text, sure, characters)
