"""From word images to readings, for any runtime of the network. Imports no TensorFlow: ONNX Runtime starts fast.

Shapes: B batch, H W input pixels, N positions, C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from textscanner.charset import Charset
from textscanner.config import ModelConfig
from textscanner.data.images import fit, is_vertical
from textscanner.inference.vocabulary import Vocabulary

READ_BATCH = 64
UPRIGHT = 0  # quarter turns


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


class _View(NamedTuple):
    """An image as the network sees it before it is fitted.

    Attributes:
      image: index of the image.
      quarter_turns: counter-clockwise: 0 upright, 1 or -1 turned by 90 degrees.
    """

    image: int
    quarter_turns: int


def read_images(
    images: Sequence[np.ndarray],
    model: ModelConfig,
    charset: Charset,
    run: Callable[[np.ndarray], DecodedArrays],
    threshold: float,
    vocabulary: Vocabulary | None = None,
    batch_size: int = READ_BATCH,
) -> list[Reading]:
    """Fits images to the network's input, runs it, and turns its arrays into readings.

    A vertical image (`images.is_vertical`) is read upright and turned by 90 degrees either way; a turned reading
    of two characters or more replaces the upright one if it is more confident.

    Args:
      images: uint8 RGB [H, W, 3] of any size.
      model: the network's input size.
      charset: the characters of its classes.
      run: the network on up to `batch_size` fitted images, uint8 [B, H, W, 3].
      threshold: the presence threshold that `run` decodes with, 0..1.
      vocabulary: word prior; None keeps the network's reading.
      batch_size: 1..READ_BATCH.

    Returns:
      one reading per image, in order.
    """
    views = [_View(i, turns) for i, image in enumerate(images) for turns in _orientations(image)]
    readings: list[Reading] = []
    for start in range(0, len(views), batch_size):
        batch = views[start : start + batch_size]
        fitted = [fit(turn(images[view.image], view.quarter_turns), model) for view in batch]
        decoded = run(np.stack([pixels for pixels, _ in fitted]))
        for row, (view, (_, resize)) in enumerate(zip(batch, fitted, strict=True)):
            ids, confidences, word_confidence = _word(decoded, row, threshold, vocabulary)
            centres = decoded.centres[row] / (resize.scale_x, resize.scale_y)
            centres = turn_back(centres, view.quarter_turns, images[view.image].shape)
            characters = _read_characters(charset.decode(ids), confidences, centres)
            reading = Reading("".join(c.text for c in characters), word_confidence, characters)
            if view.quarter_turns == UPRIGHT:
                readings.append(reading)
            elif _is_better(reading, readings[view.image]):
                readings[view.image] = reading
    return readings


def _orientations(image: np.ndarray) -> tuple[int, ...]:
    """Quarter turns, counter-clockwise, in which an image [H, W, 3] is read; upright first."""
    return (UPRIGHT, 1, -1) if is_vertical(image) else (UPRIGHT,)


def turn(image: np.ndarray, quarter_turns: int) -> np.ndarray:
    """Turns an image [H, W, 3] counter-clockwise by quarter turns."""
    return image if quarter_turns == UPRIGHT else np.ascontiguousarray(np.rot90(image, quarter_turns))


def turn_back(points: np.ndarray, quarter_turns: int, shape: tuple[int, ...]) -> np.ndarray:
    """Points of a turned image in the image before `turn`.

    Args:
      points: float [n, 2], x y in pixels of the turned image.
      quarter_turns: 0, 1 or -1, as for `turn`.
      shape: of the image before it was turned, (H, W, 3).

    Returns:
      float [n, 2], x y in pixels of that image.
    """
    height, width = shape[:2]
    x, y = points.T
    if quarter_turns == 1:
        return np.stack([width - y, x], -1)
    if quarter_turns == -1:
        return np.stack([y, height - x], -1)
    return points


def _is_better(turned: Reading, best: Reading) -> bool:
    """Whether a turned reading replaces the best so far.

    An empty one never does, and one of a single character only an empty one: a turned vertical image is wide, so it
    shows several characters if any. (A blurred `de` would become `s`.)
    """
    if not best.text:
        return turned.text != ""
    return len(turned.text) > 1 and turned.confidence > best.confidence


def _word(
    decoded: DecodedArrays, row: int, threshold: float, vocabulary: Vocabulary | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Class ids [N] and confidences [N] of a row, and the confidence of the word, all after the vocabulary."""
    ids, confidences = decoded.ids[row], decoded.confidences[row]
    if vocabulary is None or not ids[0]:  # an empty reading stays empty
        return ids, confidences, float(decoded.word_confidence[row])
    return vocabulary.correct(decoded.scores[row], decoded.presence[row], threshold)


def _read_characters(text: str, confidences: np.ndarray, centres: np.ndarray) -> tuple[ReadCharacter, ...]:
    """Characters of a text; confidences float32 [N], centres float [N, 2] in pixels of the original image."""
    return tuple(
        ReadCharacter(character, confidence=float(confidences[k]), x_px=float(centres[k, 0]), y_px=float(centres[k, 1]))
        for k, character in enumerate(text)
    )
