"""Label files next to images -> labelled rows: `labels.jsonl`, `labels.tsv`, `labels.csv`, in a folder or a zip.

    labels.jsonl   {"file": ..., "text": ..., "split": ..., "boxes": [[x, y, width, height], ...]} a line
    labels.tsv     file<tab>text, with or without a header; labels.csv with commas

Images lie beside the label file or below `images/`. What is wrong with a row is a `Reject`, never an exception: one bad
row must not end a job over a million.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import pathlib
import unicodedata
import zipfile
from collections.abc import Iterator
from typing import Literal, Protocol

import numpy as np

from textscanner.images import decode
from textscanner.schema import WordRecord

LABEL_FILES = ("labels.jsonl", "labels.tsv", "labels.csv")
HEADERS = {"file", "filename", "image", "path"}
# A box may leave the image by so much and is then cut to it; annotators are that careless.
BOX_SLACK_PX = 2.0
BOX_SLACK_SHARE = 0.05

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


@dataclasses.dataclass(frozen=True)
class Label:
    """A line of a label file; `boxes` are x, y, width, height in pixels, one per character."""

    file: str
    text: str
    split: str | None = None
    boxes: tuple[tuple[float, ...], ...] | None = None


@dataclasses.dataclass(frozen=True)
class Reject:
    """A row that was set aside, and why."""

    file: str
    reason: Reason
    detail: str


class Files(Protocol):
    """A folder or an archive."""

    def read(self, name: str) -> bytes:
        """The file's bytes; KeyError where there is none."""
        ...


class _Folder:
    def __init__(self, root: pathlib.Path) -> None:
        self._root = root

    def read(self, name: str) -> bytes:
        try:
            return (self._root / name).read_bytes()
        except OSError:
            raise KeyError(name) from None


class _Zip:
    def __init__(self, path: pathlib.Path) -> None:
        self._archive = zipfile.ZipFile(path)

    def read(self, name: str) -> bytes:
        return self._archive.read(name)


def open_source(source: str) -> Files:
    """A folder or zip archive.

    Raises:
      ValueError: there is none.
    """
    path = pathlib.Path(source).expanduser()
    if path.is_dir():
        return _Folder(path)
    try:
        return _Zip(path)
    except FileNotFoundError:
        raise ValueError(
            f"{source} does not exist: give a folder or a zip with one of {', '.join(LABEL_FILES)}"
        ) from None
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{source} is neither a folder nor a zip that can be read: {error}") from None


def read_labels(files: Files, source: str, split: str | None = None) -> Iterator[Label | Reject]:
    """The rows of the first label file found, of one split only if given.

    Raises:
      ValueError: there is no label file, or it is not UTF-8.
    """
    for name in LABEL_FILES:
        try:
            text = files.read(name).decode("utf-8-sig")
        except KeyError:
            continue
        except UnicodeDecodeError as error:
            raise ValueError(f"{source}/{name} is not UTF-8: {error}") from None
        rows = (
            _from_jsonl(text) if name.endswith(".jsonl") else _from_table(text, "\t" if name.endswith(".tsv") else ",")
        )
        yield from (row for row in rows if split is None or isinstance(row, Reject) or row.split == split)
        return
    raise ValueError(f"{source} holds none of {', '.join(LABEL_FILES)}: add one with a row per image")


def _from_jsonl(text: str) -> Iterator[Label | Reject]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            boxes = row.get("boxes")
            parsed = tuple(tuple(float(v) for v in box) for box in boxes) if boxes is not None else None
            yield Label(str(row["file"]), str(row["text"]), row.get("split"), parsed)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            yield Reject(f"line {number}", "bad_row", f"{error.__class__.__name__}: {error}")


def _from_table(text: str, delimiter: str) -> Iterator[Label | Reject]:
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    for number, row in enumerate(csv.reader(io.StringIO(text), delimiter=delimiter, quoting=quoting), 1):
        if not row or (number == 1 and row[0].strip().lower() in HEADERS):
            continue
        if len(row) < 2:
            yield Reject(f"line {number}", "bad_row", f"wanted file and text, found {row}")
            continue
        yield Label(row[0].strip(), row[1])


def to_record(label: Label, files: Files, max_length: int | None = None) -> WordRecord | Reject:
    """The row's record with its image checked, or why it has none. `max_length` None takes any length."""
    text = unicodedata.normalize("NFC", label.text.strip())
    if not text:
        return Reject(label.file, "empty_label", "")
    if max_length is not None and len(text) > max_length:
        return Reject(label.file, "too_long", f"{len(text)} characters, at most {max_length}: {text}")
    data = _image_bytes(files, label.file)
    if data is None:
        return Reject(label.file, "missing_image", "neither beside the label file nor below images/")
    try:
        height, width = decode(data, label.file).shape[:2]
    except ValueError as error:
        return Reject(label.file, "broken_image", str(error))
    if label.boxes is None:
        return WordRecord(data, text, None, label.file)
    if len(label.boxes) != len(text) or any(len(box) != 4 for box in label.boxes):
        return Reject(label.file, "box_count", f"{len(label.boxes)} boxes for {len(text)} characters: {text}")
    quads = _quads(np.asarray(label.boxes, np.float32), width, height)
    if quads is None:
        return Reject(label.file, "box_outside", f"a box leaves the image of {width}x{height} px, or is empty")
    return WordRecord(data, text, quads, label.file)


def _image_bytes(files: Files, name: str) -> bytes | None:
    for candidate in (name, f"images/{name}"):
        try:
            return files.read(candidate)
        except KeyError:
            continue
    return None


def _quads(boxes: np.ndarray, width: int, height: int) -> np.ndarray | None:
    """Boxes float32 [n, 4] as quads [n, 4, 2], cut to the image; None where one leaves it by more than the slack."""
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    size = np.array([width, height], np.float32)
    slack = np.maximum(BOX_SLACK_PX, BOX_SLACK_SHARE * size)
    if (low < -slack).any() or (high > size + slack).any():
        return None
    low, high = np.clip(low, 0, size), np.clip(high, 0, size)
    if (high <= low).any():
        return None
    (x0, y0), (x1, y1) = low.T, high.T
    return np.stack([np.stack([x0, y0], -1), np.stack([x1, y0], -1), np.stack([x1, y1], -1), np.stack([x0, y1], -1)], 1)
