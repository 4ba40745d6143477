"""Formats that pack images and labels together: LMDB, Parquet with an image column, tar shards (WebDataset)."""

from __future__ import annotations

import dataclasses
import functools
import json
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.data.importers.registry import FORMATS
from cluster.data.importers.source import MAX_FILE_BYTES, open_files
from cluster.errors import StorageError
from cluster.storage.location import Location, fetch_file, open_uri
from textscanner.data.annotations import Reject, Word, quads_of_boxes
from textscanner.data.image_files import IMAGE_SUFFIXES
from textscanner.errors import UserError

GZIP_MAGIC = b"\x1f\x8b"
SAMPLE_SUFFIXES = (*IMAGE_SUFFIXES, ".txt", ".json")  # of the files of a sample that are read
TEXT_COLUMNS = ("text", "label")
PARQUET_BATCH_ROWS = 256
MAX_COUNT_DIGITS = 15
MAX_HEADER_BYTES = 1 << 20  # of a tar member's extended header, which tarfile reads as a whole
MAX_SAMPLE_FILES = 64  # of a sample in a tar shard


@dataclasses.dataclass(frozen=True)
class Lmdb:
    """The format of the recognition benchmarks: keys `num-samples`, `image-%09d`, `label-%09d`, counted from 1.

    LMDB maps its file into memory, so a file in a bucket is first copied to the node's disk, once per node.
    """

    uri: str

    def count(self) -> int:
        """The value of `num-samples`.

        Raises:
          UserError: the file has no such key, or fewer entries than that.
        """
        value = self._get(b"num-samples")
        if value is None or not value.isdigit():
            raise UserError(f"{self.uri} has no key num-samples: it is not a recognition data set in LMDB")
        num_entries = int(_lmdb_environment(self._file).stat()["entries"])
        if len(value) > MAX_COUNT_DIGITS or int(value) > num_entries:
            raise UserError(
                f"{self.uri} is damaged: num-samples is {value.decode():.40}, but the file has {num_entries} entries"
            )
        return int(value)

    def version(self) -> str:
        return open_uri(self._file).version()

    def parts(self, rows: int) -> Iterator[tuple[int, int]]:
        """Ranges `start, stop` of samples, counted from 0."""
        total = self.count()
        return ((start, min(start + rows, total)) for start in range(0, total, rows))

    def read(self, part: tuple[int, int]) -> Iterator[Word | Reject]:
        """Reads the samples of a range."""
        for number in range(part[0] + 1, part[1] + 1):
            image, label = self._get(b"image-%09d" % number), self._get(b"label-%09d" % number)
            name = f"image-{number:09d}"
            if label is None:
                yield Reject(name, "bad_row", "the sample has no label")
                continue
            try:
                yield Word(image, label.decode(), None, name)
            except UnicodeDecodeError as error:
                yield Reject(name, "bad_row", f"the label is not UTF-8: {error}")

    @property
    def _file(self) -> str:
        return self.uri if self.uri.endswith(".mdb") else f"{self.uri.rstrip('/')}/data.mdb"

    def _get(self, key: bytes) -> bytes | None:
        with _lmdb_environment(self._file).begin() as transaction:
            value: bytes | None = transaction.get(key)
            return value


@functools.lru_cache(maxsize=4)
def _lmdb_environment(file: str) -> Any:
    import lmdb

    path = fetch_file(file)
    try:
        return lmdb.open(path, subdir=False, readonly=True, lock=False, readahead=False, meminit=False)
    except lmdb.Error as error:
        raise UserError(f"{file} is not a valid LMDB file: {error}") from None


@dataclasses.dataclass(frozen=True)
class ParquetFiles:
    """Parquet as Hugging Face writes it: a struct column `image` with `bytes` (or a `path`), a string column `text`.

    Attributes:
      split: reads only files whose name starts with it (`train-00000-of-00004.parquet`); None for all files.
    """

    uri: str
    split: str | None = None

    def count(self) -> int:
        """Number of rows, from the files' footers."""
        return sum(_parquet(self.uri, name).metadata.num_rows for name in self._names())

    def version(self) -> str:
        return " ".join(self._names())

    def parts(self, rows: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """A file's name and the indices of consecutive row groups."""
        for name in self._names():
            footer = _parquet(self.uri, name).metadata
            groups: list[int] = []
            num_rows = 0
            for group in range(footer.num_row_groups):
                groups.append(group)
                num_rows += footer.row_group(group).num_rows
                if num_rows >= rows:
                    yield name, tuple(groups)
                    groups, num_rows = [], 0
            if groups:
                yield name, tuple(groups)

    def read(self, part: tuple[str, tuple[int, ...]]) -> Iterator[Word | Reject]:
        """Reads the rows, PARQUET_BATCH_ROWS in memory at a time; only the two columns are fetched."""
        name, groups = part
        file = _parquet(self.uri, name)
        text = self._text_column(file.schema_arrow, name)
        number = 0
        try:
            for batch in file.iter_batches(PARQUET_BATCH_ROWS, row_groups=list(groups), columns=["image", text]):
                for row in batch.to_pylist():
                    yield self._word(row["image"], row[text], f"{name}#{groups[0]}+{number}")
                    number += 1
        except (pa.ArrowException, OSError) as error:
            yield Reject(f"{name}#{groups[0]}+{number}", "bad_row", f"the rest cannot be read: {error}")

    def _word(self, image: dict[str, Any] | None, text: str | None, source: str) -> Word | Reject:
        image = image or {}
        data = image.get("bytes")
        path = image.get("path")
        if data is None and path:
            try:
                data = open_files(self.uri).read(path)
            except KeyError:
                data = None
            except ValueError as error:  # a path that leads out of the folder, or that no file can have
                return Reject(path, "broken_image", str(error))
        return Word(data, text or "", None, path or source)

    def _text_column(self, schema: pa.Schema, name: str) -> str:
        columns = {field.name: field.type for field in schema}
        image = columns.get("image", pa.null())
        if _is_image_struct(image):
            for text in TEXT_COLUMNS:
                type_ = columns.get(text, pa.null())
                if pa.types.is_string(type_) or pa.types.is_large_string(type_):
                    return text
        raise UserError(
            f"{self.uri}: {name} has the columns {', '.join(f'{n} ({t})' for n, t in columns.items())}; "
            "expected image (a struct with bytes) and text or label (a string)"
        )

    def _names(self) -> list[str]:
        names = _names_ending(self.uri, FORMATS["parquet"].suffixes)
        of_split = [n for n in names if self.split is None or n.rpartition("/")[2].startswith(self.split)]
        if not of_split:
            raise UserError(f"{self.uri} has no .parquet file" + (f" of split {self.split!r}" if self.split else ""))
        return of_split


def _is_image_struct(type_: pa.DataType) -> bool:
    """Whether it has binary `bytes`; if it has a `path`, that is a string."""
    if not pa.types.is_struct(type_):
        return False
    fields = {field.name: field.type for field in type_}
    data, path = fields.get("bytes", pa.null()), fields.get("path", pa.string())
    is_binary = pa.types.is_binary(data) or pa.types.is_large_binary(data)
    return bool(is_binary and (pa.types.is_string(path) or pa.types.is_large_string(path) or pa.types.is_null(path)))


@functools.lru_cache(maxsize=64)
def _parquet(uri: str, name: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(_location(uri, name).open())
    except StorageError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{uri}: {name} is not a valid Parquet file: {error}") from None


@dataclasses.dataclass(frozen=True)
class TarShards:
    """WebDataset: tar files in which the members `KEY.jpg` and `KEY.txt` (or `KEY.json`: text, boxes) are one sample.

    The samples of a file are not known before it has been read, so a part is a tar file.
    """

    uri: str

    def count(self) -> int:
        """Number of tar files."""
        return len(self._names())

    def version(self) -> str:
        return " ".join(self._names())

    def parts(self, rows: int) -> Iterator[str]:
        """One file each, whatever its size."""
        return iter(self._names())

    def read(self, part: str) -> Iterator[Word | Reject]:
        """Reads the samples of a tar file, front to back."""
        sample: dict[str, bytes] = {}
        key = ""
        try:
            with _location(self.uri, part).open() as raw, _open_tar(raw) as archive:
                for member in archive:
                    if not member.isfile():
                        continue
                    folder, slash, base_name = member.name.rpartition("/")
                    stem, _, suffix = base_name.partition(".")
                    if f"{folder}{slash}{stem}" != key:
                        yield from _parse_sample(f"{part}:{key}", sample)
                        key, sample = f"{folder}{slash}{stem}", {}
                    if len(sample) < MAX_SAMPLE_FILES:
                        sample[f".{suffix.lower()}"] = _content(archive, member, f".{suffix.lower()}")
        except StorageError:
            raise
        except (tarfile.TarError, EOFError, ValueError, OSError, zlib.error, TypeError) as error:
            # tarfile lets a TypeError through if the gzip header ends early.
            yield Reject(f"{part}:{key}", "bad_row", f"the rest of the archive cannot be read: {error}")
            return
        yield from _parse_sample(f"{part}:{key}", sample)

    def _names(self) -> list[str]:
        return _names_ending(self.uri, FORMATS["webdataset"].suffixes)


class _BoundedTarInfo(tarfile.TarInfo):
    """The header of a member; one that would make tarfile read gigabytes of metadata is an error."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.size > MAX_HEADER_BYTES and not member.isreg()):
            raise tarfile.ReadError(f"the header of {member.name!r:.80} states {member.size:,} bytes")
        return member


def _open_tar(raw: IO[bytes]) -> tarfile.TarFile:
    """Front to back. Compressed with gzip or not at all: the blocks of bzip2 and xz inflate without limit in memory."""
    is_gzip = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    raw.seek(0)
    return tarfile.open(fileobj=raw, mode="r|gz" if is_gzip else "r|", tarinfo=_BoundedTarInfo)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> bytes:
    """The content of a member that belongs to a sample; empty for any other, and for one that is too large."""
    if suffix not in SAMPLE_SUFFIXES or member.size > MAX_FILE_BYTES:
        return b""
    content = archive.extractfile(member)
    return content.read() if content else b""


def _parse_sample(name: str, files: dict[str, bytes]) -> Iterator[Word | Reject]:
    """The word of a sample's files, by suffix; nothing if there are no files."""
    if not files:
        return
    image = next((data for suffix, data in files.items() if suffix in IMAGE_SUFFIXES), None)
    try:
        if ".txt" in files:
            yield Word(image, files[".txt"].decode(), None, name)
            return
        row = json.loads(files[".json"])
        text = row["text"] if "text" in row else row["label"]
        boxes = row.get("boxes")
        quads: np.ndarray | None = None if boxes is None else quads_of_boxes(boxes)
        yield Word(image, str(text), quads, name)
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        detail = f"no text in .txt or .json among {', '.join(files)}: {error.__class__.__name__} {error}"
        yield Reject(name, "bad_row", detail)


@functools.lru_cache(maxsize=4)
def _names_ending(uri: str, suffixes: tuple[str, ...]) -> list[str]:
    """Names of files below a URI with one of these endings; a URI that is such a file is listed as the name ''."""
    if uri.lower().endswith(suffixes):
        return [""]
    return [name for name in open_uri(uri).walk() if name.lower().endswith(suffixes)]


def _location(uri: str, name: str) -> Location:
    location = open_uri(uri)
    return location.join(name) if name else location
