"""Formats with a label file and an image file per word: our own three, ICDAR, PaddleOCR, docTR, EasyOCR, TRDG, IIIT5K.

A format is a class that parses its label file into `Label`s, as a stream; reading the images is the same for all.
"""

from __future__ import annotations

import abc
import csv
import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from cluster.data.importers.source import DAMAGED, Files, batched, file_version, has, open_files, text_lines
from textscanner.data.annotations import Reject, Word, clean_text, quads_of_boxes
from textscanner.data.image_files import is_image_name
from textscanner.errors import UserError
from textscanner.text import normalize_for_scoring

HEADER_CELLS = {"file", "filename", "image", "path"}  # first cells that mark a first row as a header
MAX_QUOTED_CHARACTERS = 80  # of a bad row, in rejects.jsonl


@dataclasses.dataclass(frozen=True, eq=False)
class Label:
    """A row of a label file.

    Attributes:
      file: the image's name, relative to the label file.
      quads: character quads [len(text), 4, 2] in pixels of the image; None where unknown.
      case_known: as in `Word`.
    """

    file: str
    text: str
    quads: np.ndarray | None = None
    case_known: bool | None = None


Row = Label | Reject


@dataclasses.dataclass(frozen=True)
class LabelledImages(abc.ABC):
    """Images in a folder, a prefix or a zip, with a label file.

    Attributes:
      label_file: the label file's name; empty if the images' names are the labels.
    """

    uri: str
    label_file: str

    @abc.abstractmethod
    def rows(self) -> Iterator[Row]:
        """Streams the rows of the label file."""

    def quads(self, row: Label) -> np.ndarray | None:
        """The character quads of a row; formats that keep them outside the label file override this."""
        return row.quads

    def count(self) -> int:
        """Number of rows, from a first pass over the label file."""
        return sum(1 for _ in self.rows())

    def version(self) -> str:
        """The version of the label file; empty if the images' names are the labels, which have no version."""
        return file_version(self.uri, self.label_file) if self.label_file else ""

    def parts(self, rows: int) -> Iterator[tuple[Row, ...]]:
        return batched(self.rows(), rows)

    def read(self, part: tuple[Row, ...]) -> Iterator[Word | Reject]:
        """Reads the images of the part's rows."""
        folder = f"{self.label_file.rpartition('/')[0]}/".lstrip("/")
        for row in part:
            if isinstance(row, Reject):
                yield row
            else:
                try:
                    image = _read_image(self._files, folder, row.file)
                except UserError as error:
                    yield Reject(row.file, "broken_image", str(error))
                    continue
                yield Word(image, row.text, self.quads(row), row.file, row.case_known)

    @property
    def _files(self) -> Files:
        return open_files(self.uri)

    def _lines(self) -> Iterator[str]:
        return text_lines(self._files, self.label_file, self.uri)

    def _bad_row(self, number: int, detail: str) -> Reject:
        return Reject(f"{self.label_file}, line {number}", "bad_row", detail)


def _read_image(files: Files, folder: str, name: str) -> bytes | None:
    """Reads an image beside the label file or in `images/` there; None if it is in neither.

    Raises:
      UserError: the name leads out of the folder of the data, or the file is too large.
    """
    for candidate in (f"{folder}{name}", f"{folder}images/{name}"):
        try:
            return files.read(candidate)
        except UserError:
            raise
        except (KeyError, ValueError):  # a name that no file can have raises a ValueError
            continue
    return None


@dataclasses.dataclass(frozen=True)
class JsonLines(LabelledImages):
    """One JSON object per line: {"file": ..., "text": ..., "split": ..., "boxes": [[x, y, width, height], ...]}.

    `text_cased`, beside `text`, is a second annotation with the case and punctuation of the image. It becomes the label
    unless its letters and digits differ from those of `text`.
    """

    split: str | None = None

    def rows(self) -> Iterator[Row]:
        for number, line in enumerate(self._lines(), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if self.split is not None and row.get("split") != self.split:
                    continue
                yield _json_label(row)
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
                yield self._bad_row(number, f"{error.__class__.__name__}: {error}")


def _json_label(row: dict[str, Any]) -> Label:
    """Raises a ValueError, KeyError or TypeError if the row is not a label."""
    boxes, cased = row.get("boxes"), row.get("text_cased")
    label = Label(str(row["file"]), str(row["text"]), None if boxes is None else quads_of_boxes(boxes))
    if cased is None:
        return label
    if normalize_for_scoring(str(cased)) != normalize_for_scoring(label.text):
        # The two disagree about letters: `text` is what benchmarks score, and says nothing about case.
        return dataclasses.replace(label, case_known=False)
    # Boxes belong to the characters of `text`: with characters added or left out, no longer one by one.
    has_boxes = len(clean_text(str(cased))) == len(clean_text(label.text))
    return Label(label.file, str(cased), label.quads if has_boxes else None, case_known=True)


@dataclasses.dataclass(frozen=True)
class CommaSeparated(LabelledImages):
    """`file,text`, quoted where necessary, with or without a header.

    Each line is a row: labels have no line breaks, and a quotation mark that is not closed costs its row only.
    """

    def rows(self) -> Iterator[Row]:
        for number, line in enumerate(self._lines(), 1):
            try:
                cells = self._cells(line)
            except csv.Error as error:  # for example a quotation mark that is not closed
                yield self._bad_row(number, str(error))
                continue
            if not cells or (number == 1 and cells[0].strip().lower() in HEADER_CELLS):
                continue
            if len(cells) < 2:
                yield self._bad_row(number, f"expected file and text, got {cells}")
                continue
            yield Label(cells[0].strip(), cells[1])

    def _cells(self, line: str) -> list[str]:
        return next(csv.reader([line], strict=True))


@dataclasses.dataclass(frozen=True)
class TabSeparated(CommaSeparated):
    """`file<tab>text`, never quoted, with or without a header."""

    def _cells(self, line: str) -> list[str]:
        return next(csv.reader([line], delimiter="\t", quoting=csv.QUOTE_NONE))


@dataclasses.dataclass(frozen=True)
class Icdar(LabelledImages):
    r"""ICDAR word recognition: `word_1.png, "text"`, a quotation mark inside is \"."""

    def rows(self) -> Iterator[Row]:
        for number, line in enumerate(self._lines(), 1):
            if not line.strip():
                continue
            match = re.fullmatch(r'\s*([^,]+?)\s*,\s*"(.*)"\s*', line.rstrip("\r\n"))
            if match:
                yield Label(match[1], re.sub(r"\\(.)", r"\1", match[2]))
            else:
                yield self._bad_row(number, f'expected file, "text", got {line.strip()}')


@dataclasses.dataclass(frozen=True)
class PaddleOcr(LabelledImages):
    """PaddleOCR recognition: `path<tab>label`; the path may be a JSON list of several images of the same text."""

    def rows(self) -> Iterator[Row]:
        for number, line in enumerate(self._lines(), 1):
            path, tab, text = line.rstrip("\r\n").partition("\t")
            if not line.strip():
                continue
            if not tab or text.startswith('[{"transcription"'):
                expected = "expected path<tab>label (a recognition label file; detection labels have no crops)"
                yield self._bad_row(number, f"{expected}, got {line.strip()[:MAX_QUOTED_CHARACTERS]}")
                continue
            try:
                paths = json.loads(path) if path.startswith("[") else [path]
            except (ValueError, RecursionError):  # a file name that starts with a bracket
                paths = [path]
            yield from (Label(str(one), text) for one in paths)


@dataclasses.dataclass(frozen=True)
class EasyOcr(LabelledImages):
    """EasyOCR: a header `filename,words`; everything after the first comma is the text, unquoted."""

    def rows(self) -> Iterator[Row]:
        for number, line in enumerate(self._lines(), 1):
            file, comma, text = line.rstrip("\r\n").partition(",")
            if number == 1 or not line.strip():
                continue
            yield Label(file, text) if comma else self._bad_row(number, f"no comma in {line.strip()}")


@dataclasses.dataclass(frozen=True)
class DocTr(LabelledImages):
    """docTR recognition: `labels.json`, one object of file names and texts; images in `images/`."""

    def rows(self) -> Iterator[Row]:
        import ijson

        try:
            with self._files.open(self.label_file) as raw:
                for file, text in ijson.kvitems(raw, ""):
                    if isinstance(text, str):
                        yield Label(file, text)
                    else:
                        yield Reject(file, "bad_row", f"expected a text, got {str(text)[:MAX_QUOTED_CHARACTERS]}")
        except (ijson.JSONError, ValueError, *DAMAGED) as error:
            raise UserError(f"{self.uri}/{self.label_file} is not valid JSON: {error}") from None


@dataclasses.dataclass(frozen=True)
class Trdg(LabelledImages):
    """TextRecognitionDataGenerator.

    Texts are in the file names (`text_7.jpg` or `7_text.jpg`), or in a label file of lines `7.jpg text`. Box files
    beside the images are `_boxes.txt` (x0 y0 x1 y1 per line) or Tesseract's `.box` (character x0 y0 x1 y1 page, y
    counted from the bottom).
    """

    def rows(self) -> Iterator[Row]:
        return self._rows_of_label_file() if self.label_file else self._rows_of_names()

    def _rows_of_label_file(self) -> Iterator[Row]:
        for number, line in enumerate(self._lines(), 1):
            file, space, text = line.rstrip("\r\n").partition(" ")
            if line.strip():
                yield Label(file, text) if space else self._bad_row(number, line.strip())

    def _rows_of_names(self) -> Iterator[Row]:
        number_is_last = self._number_is_last()
        for name in filter(is_image_name, self._files.names()):
            text, underscore, number = _stem(name).rpartition("_")
            if not number_is_last:
                number, underscore, text = _stem(name).partition("_")
            if underscore and number.isdigit():
                yield Label(name, text)
            else:
                yield Reject(name, "bad_row", "expected text_number or number_text as the file's name")

    def _number_is_last(self) -> bool:
        """Whether names are `text_number`, TRDG's default, or `number_text`: by majority of the first names."""
        stems = [_stem(name) for name in itertools.islice(filter(is_trdg_name, self._files.names()), 1000)]
        last, first = (sum(stem.split("_")[i].isdigit() for stem in stems) for i in (-1, 0))
        return last >= first

    def quads(self, row: Label) -> np.ndarray | None:
        """Reads the row's box file; None if there is none."""
        suffix = _trdg_box_suffix(self.uri)
        if not suffix:
            return None
        try:
            text = self._files.read(f"{row.file.rpartition('.')[0]}{suffix}").decode()
            # Four numbers per line; in a .box file the character before them may be a space.
            lines = [line for line in text.splitlines() if line.strip()]
            numbers = [line.rsplit(" ", 5)[1:5] if suffix == ".box" else line.split() for line in lines]
            corners = np.array(numbers, np.float32).reshape(-1, 4)
            if suffix == ".box":
                corners[:, [1, 3]] = self._height_px(row.file) - corners[:, [3, 1]]
        except KeyError:
            return None
        except ValueError:
            return np.zeros((0, 4, 2), np.float32)  # not readable: counted as a wrong number of boxes
        return quads_of_boxes(np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).tolist())

    def _height_px(self, name: str) -> int:
        from textscanner.data.images import decode

        return int(decode(self._files.read(name), name).shape[0])


def is_trdg_name(name: str) -> bool:
    """Whether this is the name of an image as TRDG gives it."""
    return is_image_name(name) and bool(re.fullmatch(r"(.+_\d+|\d+_.+)", _stem(name), re.DOTALL))


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


@functools.lru_cache(maxsize=4)
def _trdg_box_suffix(uri: str) -> str:
    """Which kind of box file lies beside the images, judged by the first of them; empty for none."""
    files = open_files(uri)
    for name in itertools.islice(filter(is_image_name, files.names()), 20):
        for suffix in ("_boxes.txt", ".box"):
            if has(files, name.rpartition(".")[0] + suffix):
                return suffix
    return ""


@dataclasses.dataclass(frozen=True)
class Iiit5k(LabelledImages):
    """IIIT5K: `traindata.mat` (names and texts) and, if it exists, `trainCharBound.mat` (character boxes)."""

    def rows(self) -> Iterator[Row]:
        quads = dict(self._char_quads())
        for file, text, *_ in self._table(self.label_file, _stem(self.label_file), ("ImgName", "GroundTruth")):
            yield Label(str(file), str(text), quads.get(str(file)))

    def _char_quads(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields an image's name and its character quads [n, 4, 2]."""
        variable = f"{_stem(self.label_file).removesuffix('data')}CharBound"
        name = f"{variable}.mat"
        if not has(self._files, name):
            return
        for file, boxes in self._table(name, variable, ("ImgName", "charBB")):
            zero_based = np.asarray(boxes, np.float32).reshape(-1, 4) - (1, 1, 0, 0)  # MATLAB counts pixels from 1
            yield str(file), quads_of_boxes(zero_based.tolist())

    def _table(self, name: str, variable: str, fields: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
        """Yields the fields of each row of a MATLAB struct array."""
        from scipy.io import loadmat

        try:
            with self._files.open(name) as raw:
                table = loadmat(raw, variable_names=[variable])[variable].ravel()
            columns = [table[field] for field in fields]
        except KeyError:
            expected = f"{variable} with {', '.join(fields)}"
            raise UserError(f"{self.uri}/{name} does not exist, or has no {expected}") from None
        except Exception as error:  # scipy lets any exception of its parser through
            raise UserError(f"{self.uri}/{name} is not a valid MATLAB file: {error}") from None
        for row in zip(*columns, strict=True):
            yield tuple(value[0] if value.dtype.kind == "U" and value.size else value for value in row)
