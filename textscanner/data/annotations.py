"""Annotated words as importers find them -> checked records. Geometry only: files are the importers' business.

What is wrong with a row is a `Reject`, never an exception: one bad row must not end a job over a million.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

from textscanner.data.images import decode
from textscanner.data.schema import WordRecord

# A quad may leave the image by so much and is then cut to it; annotators are that careless.
QUAD_SLACK_PX = 2.0
QUAD_SLACK_SHARE = 0.05
MIN_QUAD_AREA_PX = 0.5
CROP_QUALITY = 95

Reason = Literal[
    "empty_label",
    "too_long",
    "missing_image",
    "broken_image",
    "box_count",
    "box_outside",
    "bad_row",
    "unknown_character",
]


@dataclasses.dataclass(frozen=True, eq=False)
class Word:
    """A row as it was found, nothing checked.

    Attributes:
      image: encoded; None where the file is missing.
      quads: [number of characters, 4, 2] in pixels, corners TL TR BR BL; None where unknown.
    """

    image: bytes | None
    text: str
    quads: np.ndarray | None
    source: str


@dataclasses.dataclass(frozen=True)
class Reject:
    """A row that was set aside, and why."""

    file: str
    reason: Reason
    detail: str


def to_record(word: Word, max_label_length: int | None = None) -> WordRecord | Reject:
    """The row's record with its image checked, or why it has none. `max_label_length` None takes any length."""
    text = clean_text(word.text)
    if not text:
        return Reject(word.source, "empty_label", "")
    if max_label_length is not None and len(text) > max_label_length:
        return Reject(word.source, "too_long", f"{len(text)} characters, at most {max_label_length}: {text}")
    if word.image is None:
        return Reject(word.source, "missing_image", "there is no such file")
    try:
        height, width = decode(word.image, word.source).shape[:2]
    except ValueError as error:
        return Reject(word.source, "broken_image", str(error))
    if word.quads is None:
        return WordRecord(word.image, text, None, word.source)
    if word.quads.shape != (len(text), 4, 2):
        return Reject(word.source, "box_count", f"{len(word.quads)} boxes for {len(text)} characters: {text}")
    quads = _inside(word.quads.astype(np.float32), width, height)
    if quads is None:
        return Reject(word.source, "box_outside", f"a box leaves the image of {width}x{height} px, or is empty")
    return WordRecord(word.image, text, quads, word.source)


def clean_text(text: str) -> str:
    """A label as records hold it: NFC, no white space around it."""
    return unicodedata.normalize("NFC", text.strip())


def quads_of_boxes(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """Boxes (x, y, width, height) as quads float32 [n, 4, 2].

    Raises:
      ValueError: a box is not four numbers.
    """
    table = np.asarray(boxes, np.float32).reshape(len(boxes), -1)
    if len(boxes) and table.shape[1] != 4:
        raise ValueError(f"a box has {table.shape[1]} numbers, wanted x, y, width, height")
    x0, y0, width, height = table.reshape(-1, 4).T
    x1, y1 = x0 + width, y0 + height
    return np.stack([np.stack(corner, -1) for corner in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))], 1)


def crop_word(scene: np.ndarray, outline: np.ndarray, margin: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A word cut out of a scene, the way the benchmarks cut: upright, along the axes.

    A word that runs more up or down than along (its baseline is steeper than 45 degrees) is turned first.

    Args:
      scene: uint8 RGB [H, W, 3].
      outline: the word's quad [4, 2] in pixels, TL TR BR BL.
      margin: space around it, as a share of the word's height.

    Returns:
      the crop, and the affine [2, 3] that takes points of the scene to points of the crop.

    Raises:
      ValueError: nothing of the word lies inside the scene.
    """
    outline = np.asarray(outline, np.float64)
    along = outline[1] - outline[0] + outline[2] - outline[3]
    turns = round(float(np.arctan2(along[1], along[0])) / (np.pi / 2)) % 4
    height, width = scene.shape[:2]
    turn = np.array(
        [
            [[1, 0, 0], [0, 1, 0]],
            [[0, 1, 0], [-1, 0, width]],
            [[-1, 0, width], [0, -1, height]],
            [[0, -1, height], [1, 0, 0]],
        ][turns],
        np.float64,
    )
    scene = np.rot90(scene, turns)
    corners = transform(outline, turn)
    low, high = corners.min(0), corners.max(0)
    space = margin * (high[1] - low[1])
    low = np.maximum(np.floor(low - space), 0).astype(int)
    high = np.minimum(np.ceil(high + space), scene.shape[1::-1]).astype(int)
    if (high - low < 2).any():
        raise ValueError("nothing of the word lies inside the scene")
    turn[:, 2] -= low
    return np.ascontiguousarray(scene[low[1] : high[1], low[0] : high[0]]), turn


def transform(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Points [..., 2] through an affine [2, 3]."""
    return points @ affine[:, :2].T + affine[:, 2]


def encode_jpeg(image: np.ndarray) -> bytes:
    """A crop, uint8 RGB [H, W, 3], as JPEG."""
    ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, CROP_QUALITY])
    assert ok
    return data.tobytes()


def _inside(quads: np.ndarray, width: int, height: int) -> np.ndarray | None:
    """The quads cut to the image; None where one leaves it by more than the slack, or is empty."""
    size = np.array([width, height], np.float32)
    slack = np.maximum(QUAD_SLACK_PX, QUAD_SLACK_SHARE * size)
    if (quads < -slack).any() or (quads > size + slack).any():
        return None
    quads = np.clip(quads, 0, size)
    x, y = quads[..., 0], quads[..., 1]
    area = 0.5 * np.abs((x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1))
    return None if (area < MIN_QUAD_AREA_PX).any() else quads
