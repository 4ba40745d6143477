"""A label file and an image per row: our own three formats, ICDAR, PaddleOCR, docTR, EasyOCR, TRDG and IIIT5K.

Each format is a function from the files to `Label`s; reading the images is the same for all. Label files are streamed.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator

import numpy as np

from cluster.data.importers.source import IMAGE_SUFFIXES, Files, batched, file_version, has, open_files, text_lines
from textscanner.data.annotations import Reject, Word, quads_of_boxes

HEADERS = {"file", "filename", "image", "path"}


@dataclasses.dataclass(frozen=True, eq=False)
class Label:
    """A row of a label file: an image's name, its text, and its character quads [n, 4, 2] in pixels where known."""

    file: str
    text: str
    quads: np.ndarray | None = None


Row = Label | Reject
Reader = Callable[[Files, str, str | None, str], Iterator[Row]]
"""(files, name of the label file, split, URI for messages) -> rows."""


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """A folder, prefix or zip with a label file.

    Attributes:
      format: a key of READERS.
      labels: the label file's name.
    """

    uri: str
    format: str
    labels: str
    split: str | None = None

    def rows(self) -> Iterator[Row]:
        """The label file's rows, streamed."""
        return READERS[self.format](open_files(self.uri), self.labels, self.split, self.uri)

    def count(self) -> int:
        """Rows of the label file: it is read once for that."""
        return sum(1 for _ in self.rows())

    def version(self) -> str:
        """The label file's; names that carry the texts have none, the number of rows must do."""
        return file_version(self.uri, self.labels) if self.labels else ""

    def parts(self, rows: int) -> Iterator[tuple[Row, ...]]:
        """Rows by the `rows`."""
        return batched(self.rows(), rows)

    def read(self, part: tuple[Row, ...]) -> Iterator[Word | Reject]:
        """Reads the images."""
        files = open_files(self.uri)
        folder = f"{self.labels.rpartition('/')[0]}/".lstrip("/")
        for row in part:
            if isinstance(row, Reject):
                yield row
            else:
                quads = _trdg_quads(self.uri, row.file) if self.format == "trdg" else row.quads
                yield Word(_image(files, folder, row.file), row.text, quads, row.file)


def _image(files: Files, folder: str, name: str) -> bytes | None:
    """The image beside the label file or below `images/` there."""
    for candidate in (f"{folder}{name}", f"{folder}images/{name}"):
        try:
            return files.read(candidate)
        except (KeyError, ValueError):  # a name that no file can have is a ValueError
            continue
    return None


def _from_jsonl(files: Files, name: str, split: str | None, uri: str) -> Iterator[Row]:
    """{"file": ..., "text": ..., "split": ..., "boxes": [[x, y, width, height], ...]} a line."""
    for number, line in enumerate(text_lines(files, name, uri), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if split is not None and row.get("split") != split:
                continue
            boxes = row.get("boxes")
            yield Label(str(row["file"]), str(row["text"]), None if boxes is None else quads_of_boxes(boxes))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            yield Reject(f"{name}, line {number}", "bad_row", f"{error.__class__.__name__}: {error}")


def _from_tsv(files: Files, name: str, _split: str | None, uri: str) -> Iterator[Row]:
    """`file<tab>text`, with or without a header."""
    return _from_table(csv.reader(text_lines(files, name, uri), delimiter="\t", quoting=csv.QUOTE_NONE), name)


def _from_csv(files: Files, name: str, _split: str | None, uri: str) -> Iterator[Row]:
    """`file,text`, quoted where it must be, with or without a header."""
    return _from_table(csv.reader(text_lines(files, name, uri)), name)


def _from_table(rows: Iterator[list[str]], name: str) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        if not row or (number == 1 and row[0].strip().lower() in HEADERS):
            continue
        if len(row) < 2:
            yield Reject(f"{name}, line {number}", "bad_row", f"wanted file and text, found {row}")
            continue
        yield Label(row[0].strip(), row[1])


def _from_icdar(files: Files, name: str, _split: str | None, uri: str) -> Iterator[Row]:
    r"""ICDAR word recognition: `word_1.png, "text"`, a quotation mark inside as \"."""
    for number, line in enumerate(text_lines(files, name, uri), 1):
        if not line.strip():
            continue
        found = re.fullmatch(r'\s*([^,]+?)\s*,\s*"(.*)"\s*', line.rstrip("\r\n"))
        if found:
            yield Label(found[1], re.sub(r"\\(.)", r"\1", found[2]))
        else:
            yield Reject(f"{name}, line {number}", "bad_row", f'wanted file, "text", found {line.strip()}')


def _from_paddleocr(files: Files, name: str, _split: str | None, uri: str) -> Iterator[Row]:
    """PaddleOCR recognition: `path<tab>label`; the path may be a JSON list of several images of one text."""
    for number, line in enumerate(text_lines(files, name, uri), 1):
        path, tab, text = line.rstrip("\r\n").partition("\t")
        if not line.strip():
            continue
        if not tab or text.startswith('[{"transcription"'):
            wanted = "wanted path<tab>label (recognition; detection labels hold no crops)"
            yield Reject(f"{name}, line {number}", "bad_row", f"{wanted}, found {line.strip()[:80]}")
            continue
        try:
            paths = json.loads(path) if path.startswith("[") else [path]
        except ValueError:
            paths = [path]
        yield from (Label(str(one), text) for one in paths)


def _from_easyocr(files: Files, name: str, _split: str | None, uri: str) -> Iterator[Row]:
    """EasyOCR: a header `filename,words`; everything behind the first comma is the text, unquoted."""
    for number, line in enumerate(text_lines(files, name, uri), 1):
        file, comma, text = line.rstrip("\r\n").partition(",")
        if number == 1 or not line.strip():
            continue
        yield Label(file, text) if comma else Reject(f"{name}, line {number}", "bad_row", f"no comma in {line.strip()}")


def _from_doctr(files: Files, name: str, _split: str | None, uri: str) -> Iterator[Row]:
    """docTR recognition: `labels.json`, an object of file names and texts; images below `images/`."""
    import ijson

    try:
        with files.open(name) as raw:
            for file, text in ijson.kvitems(raw, ""):
                good = isinstance(text, str)
                yield Label(file, text) if good else Reject(file, "bad_row", f"wanted a text, found {str(text)[:80]}")
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise ValueError(f"{uri}/{name} is not JSON: {error}") from None


def _from_trdg(files: Files, name: str, _split: str | None, uri: str) -> Iterator[Row]:
    """TextRecognitionDataGenerator: texts in the file names (`text_7.jpg`, `7_text.jpg`), or `7.jpg text` in a file."""
    if name:
        for number, line in enumerate(text_lines(files, name, uri), 1):
            file, space, text = line.rstrip("\r\n").partition(" ")
            if line.strip():
                yield Label(file, text) if space else Reject(f"{name}, line {number}", "bad_row", line.strip())
        return
    number_last = _trdg_number_last(files)
    for file in files.names():
        if not file.lower().endswith(IMAGE_SUFFIXES):
            continue
        stem = file.rpartition("/")[2].rpartition(".")[0]
        text, bar, number_text = stem.rpartition("_") if number_last else stem.partition("_")[::-1]
        if bar and number_text.isdigit():
            yield Label(file, text)
        else:
            yield Reject(file, "bad_row", "wanted text_number or number_text as its name")


def _trdg_number_last(files: Files) -> bool:
    """Whether names are `text_number`, TRDG's default, and not `number_text`: what most of the first names say."""
    named = filter(is_trdg_name, files.names())
    stems = [name.rpartition("/")[2].rpartition(".")[0] for name in itertools.islice(named, 1000)]
    last, first = (sum(stem.split("_")[i].isdigit() for stem in stems) for i in (-1, 0))
    return last >= first


def is_trdg_name(name: str) -> bool:
    """Whether an image is named as TRDG names them."""
    return bool(re.fullmatch(r"(.+_\d+|\d+_.+)\.(jpe?g|png)", name.rpartition("/")[2], re.IGNORECASE | re.DOTALL))


def _trdg_quads(uri: str, name: str) -> np.ndarray | None:
    """`_boxes.txt` (x0 y0 x1 y1 a line) or Tesseract's `.box` (character x0 y0 x1 y1 page, y from the bottom)."""
    files, stem = open_files(uri), name.rpartition(".")[0]
    kind = _trdg_boxes(uri)
    try:
        if kind == "_boxes.txt":
            rows = [line.split() for line in files.read(f"{stem}{kind}").decode().splitlines() if line.strip()]
            corners = np.array(rows, np.float32).reshape(-1, 4)
        elif kind == ".box":
            rows = [line.rsplit(" ", 5)[1:5] for line in files.read(f"{stem}{kind}").decode().splitlines() if line]
            corners = np.array(rows, np.float32).reshape(-1, 4)
            corners[:, [1, 3]] = _height(files, name) - corners[:, [3, 1]]
        else:
            return None
    except KeyError:
        return None
    except ValueError:
        return np.zeros((0, 4, 2), np.float32)  # cannot be read: counted as a wrong number of boxes
    return quads_of_boxes(np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).tolist())


@functools.lru_cache(maxsize=4)
def _trdg_boxes(uri: str) -> str:
    """Which kind of box files lie beside the images, as the first of them tell."""
    files = open_files(uri)
    images = (name for name in files.names() if name.lower().endswith(IMAGE_SUFFIXES))
    for name in itertools.islice(images, 20):
        for kind in ("_boxes.txt", ".box"):
            if has(files, name.rpartition(".")[0] + kind):
                return kind
    return ""


def _height(files: Files, name: str) -> int:
    from textscanner.data.images import decode

    return decode(files.read(name), name).shape[0]


def _from_iiit5k(files: Files, name: str, split: str | None, uri: str) -> Iterator[Row]:
    """IIIT5K: `traindata.mat` (names and texts) and, where it is there, `trainCharBound.mat` (character boxes)."""
    split = split or "train"
    boxes = dict(_iiit5k_boxes(files, split, uri))
    for file, text, *_ in _mat_rows(files, f"{split}data.mat", f"{split}data", ("ImgName", "GroundTruth"), uri):
        yield Label(str(file), str(text), boxes.get(str(file)))


def _iiit5k_boxes(files: Files, split: str, uri: str) -> Iterator[tuple[str, np.ndarray]]:
    name = f"{split}CharBound.mat"
    if not has(files, name):
        return
    for file, corners in _mat_rows(files, name, f"{split}CharBound", ("ImgName", "charBB"), uri):
        table = np.asarray(corners, np.float32).reshape(-1, 4) - (1, 1, 0, 0)  # MATLAB counts pixels from 1
        yield str(file), quads_of_boxes(table.tolist())


def _mat_rows(files: Files, name: str, variable: str, fields: tuple[str, ...], uri: str) -> Iterator[tuple]:
    """The rows of a MATLAB struct array."""
    from scipy.io import loadmat

    try:
        with files.open(name) as raw:
            table = loadmat(raw, variable_names=[variable])[variable].ravel()
        columns = [table[field] for field in fields]
    except KeyError:
        raise ValueError(f"{uri}/{name} is missing, or has no {variable} with {', '.join(fields)}") from None
    except Exception as error:  # scipy raises what its reader happens to meet
        raise ValueError(f"{uri}/{name} is not a MATLAB file that can be read: {error}") from None
    for row in zip(*columns, strict=True):
        yield tuple(value[0] if value.dtype.kind == "U" and value.size else value for value in row)


READERS: dict[str, Reader] = {
    "jsonl": _from_jsonl,
    "tsv": _from_tsv,
    "csv": _from_csv,
    "icdar": _from_icdar,
    "paddleocr": _from_paddleocr,
    "doctr": _from_doctr,
    "easyocr": _from_easyocr,
    "trdg": _from_trdg,
    "iiit5k": _from_iiit5k,
}
