"""Annotated words as importers read them -> checked records. Labels and geometry only; importers read the files.

A row that cannot be used becomes a `Reject`, not an exception: one bad row must not end an import of a million.

Shapes: H, W: height and width of an image; n: characters of a word. Coordinates are x, y in pixels.
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

# A quad may reach outside the image by the larger of these and is then clipped: annotators are not exact.
QUAD_SLACK_PX = 2.0
QUAD_SLACK_SHARE = 0.05  # of the image's width or height
MIN_QUAD_AREA_PX = 0.5  # square pixels
CROP_JPEG_QUALITY = 95

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
    """A row as annotated; nothing is checked yet.

    Attributes:
      image: encoded image; None if the file is missing.
      quads: [n, 4, 2], corners TL TR BR BL; None where unknown.
      source: origin of the row.
      case_known: whether the letters of `text` have the case that the image shows; None where the row does not say.
    """

    image: bytes | None
    text: str
    quads: np.ndarray | None
    source: str
    case_known: bool | None = None


@dataclasses.dataclass(frozen=True)
class Reject:
    """A row that cannot be used, and why; a line of rejects.jsonl. `file` and `detail` can be encoded as UTF-8."""

    file: str
    reason: Reason
    detail: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "file", _encodable(self.file))
        object.__setattr__(self, "detail", _encodable(self.detail))


def to_record(word: Word, max_label_length: int | None = None, *, case_known: bool = True) -> WordRecord | Reject:
    """Checks a row.

    Args:
      max_label_length: longest accepted label in characters; None accepts any.
      case_known: applies to a word that does not say whether its label's case is known.

    Returns:
      the record, or the reason why the row cannot be used.
    """
    text = clean_text(word.text)
    if not text:
        return Reject(word.source, "empty_label", "")
    if text != _encodable(text):
        return Reject(word.source, "bad_row", f"the label has half a character: {text}")
    if max_label_length is not None and len(text) > max_label_length:
        return Reject(word.source, "too_long", f"{len(text)} characters, at most {max_label_length}: {text}")
    if word.image is None:
        return Reject(word.source, "missing_image", "the file does not exist")
    try:
        height, width = decode(word.image, word.source).shape[:2]
    except ValueError as error:
        return Reject(word.source, "broken_image", str(error))
    record = WordRecord(
        word.image, text, None, _encodable(word.source), case_known if word.case_known is None else word.case_known
    )
    if word.quads is None:
        return record
    if word.quads.shape != (len(text), 4, 2):
        return Reject(word.source, "box_count", f"{len(word.quads)} boxes for {len(text)} characters: {text}")
    quads = _clip_quads(word.quads.astype(np.float32), width, height)
    if quads is None:
        return Reject(word.source, "box_outside", f"a box is outside the image of {width}x{height} px, or empty")
    return dataclasses.replace(record, quads=quads)


def _encodable(text: str) -> str:
    """With escapes for lone surrogates, which JSON can state but UTF-8 cannot."""
    return text.encode(errors="backslashreplace").decode()


def clean_text(text: str) -> str:
    """Normalizes a label: NFC, without surrounding white space."""
    return unicodedata.normalize("NFC", text.strip())


def quads_of_boxes(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """Converts boxes (x, y, width, height) to quads, float32 [n, 4, 2].

    Raises:
      ValueError: a box is not four numbers.
    """
    table = np.asarray(boxes, np.float32).reshape(len(boxes), -1)
    if len(boxes) and table.shape[1] != 4:
        raise ValueError(f"a box has {table.shape[1]} numbers, expected x, y, width, height")
    x0, y0, width, height = table.reshape(-1, 4).T
    x1, y1 = x0 + width, y0 + height
    return np.stack([np.stack(corner, -1) for corner in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))], 1)


def crop_word(scene: np.ndarray, outline: np.ndarray, margin: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Crops a word from a scene as the benchmarks do: upright, with an axis-aligned rectangle.

    A word whose baseline is steeper than 45 degrees is first rotated by a multiple of 90 degrees.

    Args:
      scene: uint8 RGB [H, W, 3].
      outline: the word's quad [4, 2], TL TR BR BL.
      margin: space around the word, as a fraction of its height.

    Returns:
      the crop, uint8 RGB, and the affine [2, 3] that maps points of the scene to points of the crop.

    Raises:
      ValueError: no part of the word lies inside the scene.
    """
    outline = np.asarray(outline, np.float64)
    if not np.isfinite(outline).all():
        raise ValueError("the word's outline is not finite")
    baseline = outline[1] - outline[0] + outline[2] - outline[3]
    quarter_turns = round(float(np.arctan2(baseline[1], baseline[0])) / (np.pi / 2)) % 4
    height, width = scene.shape[:2]
    affine = np.array(
        [
            [[1, 0, 0], [0, 1, 0]],
            [[0, 1, 0], [-1, 0, width]],
            [[-1, 0, width], [0, -1, height]],
            [[0, -1, height], [1, 0, 0]],
        ][quarter_turns],
        np.float64,
    )
    scene = np.rot90(scene, quarter_turns)
    corners = transform(outline, affine)
    low, high = corners.min(0), corners.max(0)
    space_px = margin * (high[1] - low[1])
    size = scene.shape[1::-1]
    low = np.clip(np.floor(low - space_px), 0, size).astype(int)
    high = np.clip(np.ceil(high + space_px), 0, size).astype(int)
    if (high - low < 2).any():
        raise ValueError("no part of the word lies inside the scene")
    affine[:, 2] -= low
    return np.ascontiguousarray(scene[low[1] : high[1], low[0] : high[0]]), affine


def transform(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Maps points [..., 2] through an affine [2, 3]."""
    mapped: np.ndarray = points @ affine[:, :2].T + affine[:, 2]
    return mapped


def encode_jpeg(image: np.ndarray) -> bytes:
    """Encodes an image, uint8 RGB [H, W, 3], as JPEG."""
    ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, CROP_JPEG_QUALITY])
    assert ok
    return data.tobytes()


def _clip_quads(quads: np.ndarray, width: int, height: int) -> np.ndarray | None:
    """Clips quads [n, 4, 2] to the image; None if one is outside by more than the slack, empty, or not finite."""
    if not np.isfinite(quads).all():  # comparisons with NaN are false
        return None
    size = np.array([width, height], np.float32)
    slack = np.maximum(QUAD_SLACK_PX, QUAD_SLACK_SHARE * size)
    if (quads < -slack).any() or (quads > size + slack).any():
        return None
    quads = np.clip(quads, 0, size)
    x, y = quads[..., 0], quads[..., 1]
    # Shoelace formula, [n].
    area = 0.5 * np.abs((x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1))
    return None if (area < MIN_QUAD_AREA_PX).any() else quads
