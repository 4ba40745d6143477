"""From word images to readings, for any runtime of the network. Imports no TensorFlow: ONNX Runtime starts fast.

Shapes: B batch, H W input pixels, N positions, C classes.
"""

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
    """A character of a reading.

    Attributes:
      text: the character.
      confidence: 0..1.
      x_px, y_px: its centre in pixels of the original image.
    """

    text: str
    confidence: float
    x_px: float
    y_px: float


@dataclasses.dataclass(frozen=True)
class Reading:
    """The text of one word image.

    Attributes:
      text: the word; empty if no character was detected.
      confidence: 0..1; without a vocabulary the product over the characters, with one the posterior probability of the
        text. 0 for an empty reading.
      characters: one entry per character of `text`.
    """

    text: str
    confidence: float
    characters: tuple[ReadCharacter, ...]


class DecodedArrays(Protocol):
    """What a network returns for a batch: fields of `textscanner.inference.decode.Decoded` as NumPy arrays."""

    @property
    def ids(self) -> np.ndarray:
        """int32 [B, N]."""

    @property
    def confidences(self) -> np.ndarray:
        """float32 [B, N] in 0..1."""

    @property
    def centres(self) -> np.ndarray:
        """float32 [B, N, 2], x y in pixels of the network's input."""

    @property
    def scores(self) -> np.ndarray:
        """float32 [B, N, C], share of each class at each position; background is 0."""

    @property
    def presence(self) -> np.ndarray:
        """float32 [B, N] in 0..1, how certain it is that each position exists."""

    @property
    def word_confidence(self) -> np.ndarray:
        """float32 [B] in 0..1."""


def pad_batch(inputs: np.ndarray) -> np.ndarray:
    """Pads fitted images, uint8 [B, H, W, 3], with zeros to READ_BATCH rows.

    With one batch size there is one trace and one choice of kernels, and the result of a row does not depend on how
    many images came with it.
    """
    padded = np.zeros((READ_BATCH, *inputs.shape[1:]), np.uint8)
    padded[: len(inputs)] = inputs
    return padded


def read_images(
    images: Sequence[np.ndarray],
    model: ModelConfig,
    charset: Charset,
    run: Callable[[np.ndarray], DecodedArrays],
    threshold: float,
    vocabulary: Vocabulary | None = None,
) -> list[Reading]:
    """Fits images to the network's input, runs it, and turns its arrays into readings.

    Args:
      images: uint8 RGB [H, W, 3] of any size.
      model: the network's input size.
      charset: the characters of its classes.
      run: the network on up to READ_BATCH fitted images, uint8 [B, H, W, 3].
      threshold: the presence threshold that `run` decodes with, 0..1.
      vocabulary: word prior; None keeps the network's reading.

    Returns:
      one reading per image, in order.
    """
    readings: list[Reading] = []
    for start in range(0, len(images), READ_BATCH):
        fitted = [fit(image, model) for image in images[start : start + READ_BATCH]]
        decoded = run(np.stack([pixels for pixels, _ in fitted]))
        for i, (_, resize) in enumerate(fitted):
            ids, confidences = decoded.ids[i], decoded.confidences[i]
            word_confidence = float(decoded.word_confidence[i])
            if vocabulary is not None and ids[0]:  # an empty reading stays empty
                ids, confidences, word_confidence = vocabulary.correct(
                    decoded.scores[i], decoded.presence[i], threshold
                )
            characters = _read_characters(charset.decode(ids), confidences, decoded.centres[i], resize)
            readings.append(Reading("".join(c.text for c in characters), word_confidence, characters))
    return readings


def _read_characters(
    text: str, confidences: np.ndarray, centres: np.ndarray, resize: ResizeInfo
) -> tuple[ReadCharacter, ...]:
    """Characters of a text; confidences float32 [N], centres float32 [N, 2] in pixels of the fitted image."""
    return tuple(
        ReadCharacter(
            text=character,
            confidence=float(confidences[k]),
            x_px=float(centres[k, 0] / resize.scale_x),
            y_px=float(centres[k, 1] / resize.scale_y),
        )
        for k, character in enumerate(text)
    )
