"""Images and labels packed together: LMDB, Parquet with an image column, tar shards (WebDataset)."""

from __future__ import annotations

import dataclasses
import functools
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.data.importers.source import IMAGE_SUFFIXES, open_files
from cluster.storage.location import fetch_file, open_uri
from textscanner.data.annotations import Reject, Word, quads_of_boxes

TEXT_COLUMNS = ("text", "label")
ROWS_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class Lmdb:
    """The format that recognition benchmarks come in: `num-samples`, `image-%09d`, `label-%09d`, counted from 1.

    LMDB maps its file into memory, so one in a bucket is first copied to the node's disk, once per node.
    """

    uri: str

    def count(self) -> int:
        """`num-samples`.

        Raises:
          ValueError: it is not such a file.
        """
        found = self._get(b"num-samples")
        if found is None or not found.isdigit():
            raise ValueError(f"{self.uri} has no num-samples: not a recognition data set")
        return int(found)

    def version(self) -> str:
        """The file's."""
        return open_uri(self._file).version()

    def parts(self, rows: int) -> Iterator[tuple[int, int]]:
        """Ranges of sample numbers."""
        total = self.count()
        return ((start, min(start + rows, total)) for start in range(0, total, rows))

    def read(self, part: tuple[int, int]) -> Iterator[Word | Reject]:
        """Samples `start:stop`, counted from 0."""
        for number in range(part[0] + 1, part[1] + 1):
            image, label = self._get(b"image-%09d" % number), self._get(b"label-%09d" % number)
            name = f"image-{number:09d}"
            if label is None:
                yield Reject(name, "bad_row", "it has no label")
                continue
            try:
                yield Word(image, label.decode(), None, name)
            except UnicodeDecodeError as error:
                yield Reject(name, "bad_row", f"its label is not UTF-8: {error}")

    @property
    def _file(self) -> str:
        return self.uri if self.uri.endswith(".mdb") else f"{self.uri.rstrip('/')}/data.mdb"

    def _get(self, key: bytes) -> bytes | None:
        with _lmdb(self._file).begin() as transaction:
            return transaction.get(key)


@functools.lru_cache(maxsize=4)
def _lmdb(file: str) -> Any:
    import lmdb

    path = fetch_file(file)
    try:
        return lmdb.open(path, subdir=False, readonly=True, lock=False, readahead=False, meminit=False)
    except lmdb.Error as error:
        raise ValueError(f"{file} is not an LMDB file that can be read: {error}") from None


@dataclasses.dataclass(frozen=True)
class ParquetFiles:
    """Parquet as Hugging Face writes it: a struct column `image` with `bytes` (or a `path`), a string column `text`.

    Attributes:
      split: only files whose name begins with it (`train-00000-of-00004.parquet`).
    """

    uri: str
    split: str | None = None

    def count(self) -> int:
        """Rows, from the files' footers."""
        return sum(_parquet(self.uri, name).metadata.num_rows for name in self._names())

    def version(self) -> str:
        """The files' names."""
        return " ".join(self._names())

    def parts(self, rows: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Consecutive row groups of a file."""
        for name in self._names():
            footer = _parquet(self.uri, name).metadata
            taken: list[int] = []
            held = 0
            for group in range(footer.num_row_groups):
                taken.append(group)
                held += footer.row_group(group).num_rows
                if held >= rows:
                    yield name, tuple(taken)
                    taken, held = [], 0
            if taken:
                yield name, tuple(taken)

    def read(self, part: tuple[str, tuple[int, ...]]) -> Iterator[Word | Reject]:
        """The rows, ROWS_AT_ONCE in memory at a time; only the two columns are fetched."""
        name, groups = part
        file = _parquet(self.uri, name)
        text = self._text_column(file.schema_arrow, name)
        number = 0
        try:
            for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=list(groups), columns=["image", text]):
                for row in batch.to_pylist():
                    yield self._word(row["image"], row[text], f"{name}#{groups[0]}+{number}")
                    number += 1
        except (pa.ArrowException, OSError) as error:
            yield Reject(f"{name}#{groups[0]}+{number}", "bad_row", f"the rest cannot be read: {error}")

    def _word(self, image: dict[str, Any] | None, text: str | None, source: str) -> Word:
        image = image or {}
        data = image.get("bytes")
        path = image.get("path")
        if data is None and path:
            try:
                data = open_files(self.uri).read(path)
            except KeyError:
                data = None
        return Word(data, text or "", None, path or source)

    def _text_column(self, schema: pa.Schema, name: str) -> str:
        columns = {field.name: field.type for field in schema}
        image = columns.get("image", pa.null())
        if pa.types.is_struct(image) and image.get_field_index("bytes") >= 0:
            for text in TEXT_COLUMNS:
                kind = columns.get(text, pa.null())
                if pa.types.is_string(kind) or pa.types.is_large_string(kind):
                    return text
        raise ValueError(
            f"{self.uri}: {name} has the columns {', '.join(f'{n} ({t})' for n, t in columns.items())}; "
            "wanted image (a struct with bytes) and text or label (a string)"
        )

    def _names(self) -> list[str]:
        names = names_ending(self.uri, (".parquet",))
        kept = [n for n in names if self.split is None or n.rpartition("/")[2].startswith(self.split)]
        if not kept:
            raise ValueError(f"{self.uri} has no .parquet file" + (f" of split {self.split!r}" if self.split else ""))
        return kept


@functools.lru_cache(maxsize=64)
def _parquet(uri: str, name: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(_place(uri, name).open())
    except pa.ArrowException as error:
        raise ValueError(f"{uri}: {name} is not a Parquet file that can be read: {error}") from None


@dataclasses.dataclass(frozen=True)
class TarShards:
    """WebDataset: tar files whose members `KEY.jpg` and `KEY.txt` (or `KEY.json` with `text`, `boxes`) belong together.

    What a sample holds is not known before its file has been read, so a part is a tar file.
    """

    uri: str

    def count(self) -> int:
        """Tar files."""
        return len(names_ending(self.uri, TAR_SUFFIXES))

    def version(self) -> str:
        """The files' names."""
        return " ".join(names_ending(self.uri, TAR_SUFFIXES))

    def parts(self, rows: int) -> Iterator[str]:
        """One file each."""
        return iter(names_ending(self.uri, TAR_SUFFIXES))

    def read(self, part: str) -> Iterator[Word | Reject]:
        """The samples of a tar file, read from front to back."""
        sample: dict[str, bytes] = {}
        key = ""
        try:
            with _place(self.uri, part).open() as raw, tarfile.open(fileobj=raw, mode="r|*") as archive:
                for member in archive:
                    if not member.isfile():
                        continue
                    folder, slash, base = member.name.rpartition("/")
                    stem, _, suffix = base.partition(".")
                    if f"{folder}{slash}{stem}" != key:
                        yield from _sample(f"{part}:{key}", sample)
                        key, sample = f"{folder}{slash}{stem}", {}
                    content = archive.extractfile(member)
                    sample[f".{suffix.lower()}"] = content.read() if content else b""
        except (tarfile.TarError, EOFError) as error:
            yield Reject(f"{part}:{key}", "bad_row", f"the archive cannot be read further: {error}")
            return
        yield from _sample(f"{part}:{key}", sample)


TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")


def _sample(name: str, files: dict[str, bytes]) -> Iterator[Word | Reject]:
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
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        found = ", ".join(files)
        yield Reject(name, "bad_row", f"no text in .txt or .json among {found}: {error.__class__.__name__} {error}")


@functools.lru_cache(maxsize=4)
def names_ending(uri: str, suffixes: tuple[str, ...]) -> list[str]:
    """Files below a URI with one of these endings; of a URI that is such a file, itself, as the name ''."""
    if uri.lower().endswith(suffixes):
        return [""]
    return [name for name in open_uri(uri).walk() if name.lower().endswith(suffixes)]


def _place(uri: str, name: str) -> Any:
    place = open_uri(uri)
    return place.join(name) if name else place
