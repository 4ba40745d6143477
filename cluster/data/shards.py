"""Prepared data sets: Parquet shards plus a manifest that is written last.

A folder without `manifest.json` is not a data set, so the shards of a writer that died are never read. The manifest
lists every shard with its size, and every row group with its byte range and SHA-256. So the sampler needs no shard,
ingest fetches a row group in one request, and a flipped byte is detected before it is trained on.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.data.row_group_cache import RowGroupCache
from cluster.errors import FileSizeError, StorageError
from cluster.storage.location import open_uri
from cluster.storage.manifest_values import is_count, is_sha256
from textscanner.data import schema
from textscanner.data.schema import DATASET_MANIFEST_NAME, SCHEMA_VERSION, WordRecord
from textscanner.errors import UserError

MAX_MANIFEST_BYTES = 1 << 28  # of about 500 million rows: 128 bytes per row group of 256
MAX_UNKNOWN_BYTES = 1 << 20  # that pyarrow may read beside what was fetched; it reads 64 KiB to find a footer
ROW_GROUP_ROWS = 256
SHARD_NAME = re.compile(r"shard-[0-9-]{1,100}\.parquet")


@dataclasses.dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows of a shard that are fetched together: bytes `start:stop` of its file."""

    num_rows: int
    start: int
    stop: int
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True)
class RowGroupRef:
    """All that is needed to fetch a row group.

    Attributes:
      shard: file name of its shard.
      shard_bytes: size of the shard.
      footer_start: offset of the shard's Parquet footer, which ends with the file.
      index: index of the row group in its shard.
    """

    shard: str
    shard_bytes: int
    footer_start: int
    index: int
    group: RowGroup


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """A shard's entry in the manifest.

    Attributes:
      num_bytes: size of the file.
      row_groups: in order; the rest of the file is the Parquet footer.
      characters: number of occurrences of each character in the labels.
      num_with_quads: rows with character quads.
      max_label_length: characters of the longest label.
    """

    name: str
    num_rows: int
    num_bytes: int
    sha256: str
    row_groups: tuple[RowGroup, ...]
    characters: dict[str, int]
    num_with_quads: int
    max_label_length: int

    def as_dict(self) -> dict[str, Any]:
        """The JSON-compatible entry that `from_dict` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, entry: dict[str, Any]) -> ShardInfo:
        """Raises a ValueError, KeyError or TypeError if the entry cannot be one of a shard."""
        shard = cls(**{**entry, "row_groups": tuple(RowGroup(**group) for group in entry["row_groups"])})
        _check_shard(shard)
        return shard

    def refs(self) -> Iterator[RowGroupRef]:
        """Yields the row groups in order."""
        for i, group in enumerate(self.row_groups):
            yield RowGroupRef(self.name, self.num_bytes, self.row_groups[-1].stop, i, group)


def _check_shard(shard: ShardInfo) -> None:
    """Whoever can write to a bucket writes its manifests, and a shard's name becomes part of a path.

    Raises:
      UserError: the name is not a shard's, or a size, a count or a hash is impossible.
    """
    if not isinstance(shard.name, str) or not SHARD_NAME.fullmatch(shard.name):
        raise UserError(f"a shard's name is {shard.name!r:.80}: must match {SHARD_NAME.pattern}")
    groups = shard.row_groups
    edges = [0, *(edge for group in groups for edge in (group.start, group.stop)), shard.num_bytes]
    counts = [shard.num_with_quads, shard.max_label_length, shard.num_rows, *(group.num_rows for group in groups)]
    counts += shard.characters.values()
    if not all(is_count(number) for number in (*edges, *counts)):
        raise UserError(f"{shard.name}: a number of bytes, rows or characters is not a whole number from 0")
    if edges != sorted(edges) or shard.num_rows != sum(group.num_rows for group in groups):
        raise UserError(f"{shard.name}: its row groups overlap, or have not as many bytes or rows as it has")
    hashes = (shard.sha256, *(group.sha256 for group in groups))
    if not all(is_sha256(sha256) for sha256 in hashes):
        raise UserError(f"{shard.name}: a hash is not a SHA-256 in hexadecimal")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The manifest of a data set.

    Attributes:
      reject_counts: rejected rows by reason.
      origin: how the data set was made; informational, no code depends on it.
    """

    schema_version: int
    shards: tuple[ShardInfo, ...]
    reject_counts: dict[str, int]
    origin: dict[str, Any]

    @property
    def num_rows(self) -> int:
        """Number of rows over all shards."""
        return sum(shard.num_rows for shard in self.shards)

    @property
    def characters(self) -> dict[str, int]:
        """Number of occurrences of each character in the labels, most frequent first."""
        counts: collections.Counter[str] = collections.Counter()
        for shard in self.shards:
            counts.update(shard.characters)
        return dict(counts.most_common())

    @property
    def content_hash(self) -> str:
        """SHA-256 over the shards' hashes: equal for equal content."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()


def prepare_destination(dataset_uri: str, overwrite: bool = False) -> None:
    """Checks that a new data set may be written to a URI, and deletes an existing one if it may be replaced.

    Raises:
      UserError: a data set exists and `overwrite` is false.
      StorageError: storage refuses or does not answer.
    """
    location = open_uri(dataset_uri)
    if not location.join(DATASET_MANIFEST_NAME).exists():
        return
    if not overwrite:
        raise UserError(
            f"out is {dataset_uri}, which already holds a data set: choose another URI, or replace it (overwrite)"
        )
    location.join(DATASET_MANIFEST_NAME).delete()  # first: without it, the rest is not a data set
    for name, is_folder in location.names():
        if not is_folder and SHARD_NAME.fullmatch(name):
            location.join(name).delete()


class ShardWriter:
    """Writes the shards of one part of a data set, each as soon as `max_bytes` of images are in memory."""

    def __init__(self, dataset_uri: str, part: int, max_bytes: int) -> None:
        self._uri, self._part, self._max_bytes = dataset_uri, part, max_bytes
        self._records: list[WordRecord] = []
        self._image_bytes = 0
        self.shards: list[ShardInfo] = []

    def add(self, record: WordRecord) -> None:
        self._records.append(record)
        self._image_bytes += len(record.image)
        if self._image_bytes >= self._max_bytes:
            self._flush()

    def close(self) -> list[ShardInfo]:
        """Writes the remaining records and returns all shards."""
        if self._records:
            self._flush()
        return self.shards

    def _flush(self) -> None:
        self.shards.append(write_shard(self._uri, f"{self._part:05d}-{len(self.shards):03d}", self._records))
        self._records, self._image_bytes = [], 0


def write_shard(dataset_uri: str, number: str, records: list[WordRecord]) -> ShardInfo:
    """Writes one shard; the same records give the same bytes."""
    name = f"shard-{number}.parquet"
    sink = pa.BufferOutputStream()
    # Images are compressed already: compressing them again and keeping statistics would only cost time.
    pq.write_table(
        schema.to_table(records),
        sink,
        row_group_size=ROW_GROUP_ROWS,
        compression={name: "none" if name == schema.IMAGE else "zstd" for name in schema.ARROW_SCHEMA.names},
        use_dictionary=[schema.SOURCE],
        write_statistics=False,
    )
    data = sink.getvalue().to_pybytes()
    open_uri(dataset_uri).join(name).write_bytes(data)
    counts: collections.Counter[str] = collections.Counter()
    for record in records:
        counts.update(record.text)
    return ShardInfo(
        name=name,
        num_rows=len(records),
        num_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        row_groups=_row_groups(data),
        characters=dict(sorted(counts.items())),
        num_with_quads=sum(record.quads is not None for record in records),
        max_label_length=max((len(record.text) for record in records), default=0),
    )


def write_manifest(
    dataset_uri: str, shards: list[ShardInfo], *, reject_counts: dict[str, int], origin: dict[str, Any]
) -> Manifest:
    """Writes the manifest, which makes the shards a data set. Shards without rows are left out.

    Raises:
      UserError: it is larger than what `read_manifest` reads.
      StorageError: storage refuses or does not answer.
    """
    ordered = tuple(sorted((shard for shard in shards if shard.num_rows), key=lambda shard: shard.name))
    manifest = Manifest(SCHEMA_VERSION, ordered, dict(reject_counts), dict(origin))
    content = {
        "schema_version": manifest.schema_version,
        "num_rows": manifest.num_rows,
        "characters": manifest.characters,
        "reject_counts": manifest.reject_counts,
        "origin": manifest.origin,
        "shards": [shard.as_dict() for shard in ordered],
    }
    data = manifest_json(content)
    if len(data) > MAX_MANIFEST_BYTES:
        raise UserError(
            f"the manifest of {dataset_uri} has {len(data):,} bytes for {manifest.num_rows:,} rows: must be at most "
            f"{MAX_MANIFEST_BYTES:,} bytes, so write the rows as several data sets"
        )
    open_uri(dataset_uri).join(DATASET_MANIFEST_NAME).write_bytes(data)
    return manifest


def manifest_json(content: dict[str, Any]) -> bytes:
    """Without white space, which would take a third of a manifest."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def is_dataset(uri: str) -> bool:
    """Whether a URI is a prepared data set."""
    return open_uri(uri).join(DATASET_MANIFEST_NAME).exists()


def read_manifest(dataset_uri: str, content_hash: str | None = None) -> Manifest:
    """Reads the manifest of a data set.

    Args:
      content_hash: that a run began with; None accepts any content.

    Raises:
      UserError: there is none, it is damaged or of another version, or its content is another.
      StorageError: storage refuses or does not answer.
    """
    location = open_uri(dataset_uri).join(DATASET_MANIFEST_NAME)
    if not location.exists():
        raise UserError(
            f"{dataset_uri} is not a prepared data set (no {DATASET_MANIFEST_NAME}): convert labelled images with the "
            "command prepare, or render words with the command render"
        )
    with _damage_of(location.uri):
        content = dict(json.loads(location.read_at_most(MAX_MANIFEST_BYTES)))
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{location.uri} has schema version {version}, this program reads {SCHEMA_VERSION}: prepare the data set "
            "again, or render it again if it was rendered"
        )
    with _damage_of(location.uri):
        shards = tuple(ShardInfo.from_dict(shard) for shard in content["shards"])
        manifest = Manifest(SCHEMA_VERSION, shards, dict(content["reject_counts"]), dict(content["origin"]))
    if content_hash is not None:
        require_content(dataset_uri, manifest, content_hash)
    return manifest


def require_content(dataset_uri: str, manifest: Manifest, content_hash: str) -> None:
    """Checks that a data set is the one that a run began with.

    Raises:
      UserError: it is not.
    """
    if manifest.content_hash != content_hash:
        raise UserError(
            f"{dataset_uri} has changed since this run began: its content hash is {manifest.content_hash:.12}, and was "
            f"{content_hash:.12}: restore the data set, or choose another name for a new run"
        )


@contextlib.contextmanager
def _damage_of(uri: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, FileSizeError) as error:
        raise UserError(f"{uri} is damaged ({error}): restore it, or prepare the data set again") from None


def read_row_group(dataset_uri: str, ref: RowGroupRef, cache: RowGroupCache | None = None) -> pa.Table:
    """Reads a row group and verifies it against the manifest.

    Args:
      cache: looked up first; stores what is fetched.

    Raises:
      UserError: the shard is missing, truncated, damaged or unreachable.
    """
    group = ref.group
    data = cache.get(group.sha256) if cache is not None else None
    if data is None:
        data = _fetch(dataset_uri, ref.shard, group)
        if cache is not None:
            cache.put(group.sha256, data)
    footer = _footer(dataset_uri, ref.shard, ref.footer_start, ref.shard_bytes)
    window = pa.PythonFile(_Window(data, group.start, ref.shard_bytes), mode="r")
    return pq.ParquetFile(window, metadata=footer).read_row_group(ref.index)


def read_records(dataset_uri: str) -> Iterator[WordRecord]:
    """Yields all records of a data set in storage order, with one row group in memory at a time.

    Raises:
      UserError, StorageError: as `read_manifest` and `read_row_group`.
    """
    for shard in read_manifest(dataset_uri).shards:
        for ref in shard.refs():
            yield from schema.from_table(read_row_group(dataset_uri, ref))


def _fetch(dataset_uri: str, name: str, group: RowGroup) -> bytes:
    """The bytes of a row group; fetched a second time if the first does not match the manifest."""
    for _ in range(2):
        data = _read_range(dataset_uri, name, group.start, group.stop)
        if hashlib.sha256(data).hexdigest() == group.sha256:
            return data
    raise UserError(
        f"{dataset_uri}/{name}, bytes {group.start}-{group.stop}: their SHA-256 is not the manifest's; the shard is "
        "damaged: restore it, or prepare the data set again"
    )


@functools.lru_cache(maxsize=512)
def _footer(dataset_uri: str, name: str, start: int, stop: int) -> pq.FileMetaData:
    data = _read_range(dataset_uri, name, start, stop)
    try:
        return pq.read_metadata(pa.PythonFile(_Window(data, start, stop), mode="r"))
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{dataset_uri}/{name}: its footer is damaged ({error}): restore it, or prepare the data set again"
        ) from None


def _read_range(dataset_uri: str, name: str, start: int, stop: int) -> bytes:
    try:
        return open_uri(dataset_uri).join(name).read_bytes(start, stop)
    except StorageError as error:
        raise UserError(f"shard {name}: {error}; the shard is missing, truncated or unreachable") from None


def _row_groups(data: bytes) -> tuple[RowGroup, ...]:
    """The byte ranges and hashes of the row groups of a Parquet file."""
    footer = pq.read_metadata(pa.BufferReader(data))
    row_groups = []
    for i in range(footer.num_row_groups):
        group = footer.row_group(i)
        chunks = [group.column(j) for j in range(group.num_columns)]
        start = min(c.dictionary_page_offset or c.data_page_offset for c in chunks)
        stop = start + sum(c.total_compressed_size for c in chunks)
        row_groups.append(RowGroup(group.num_rows, start, stop, hashlib.sha256(data[start:stop]).hexdigest()))
    return tuple(row_groups)


class _Window(io.RawIOBase):
    """A read-only file of `size` bytes, of which only `data`, the bytes from offset `start` on, are known.

    pyarrow reads footers and row groups from whole files. This gives it the range that was fetched at its offset in the
    file; bytes outside the range read as zero, and pyarrow does not use them.
    """

    def __init__(self, data: bytes, start: int, size: int) -> None:
        super().__init__()
        self._data, self._start, self._size = memoryview(data), start, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def read(self, size: int = -1) -> bytes:
        begin = self._position
        stop = self._size if size < 0 else min(begin + size, self._size)
        if stop - begin > len(self._data) + MAX_UNKNOWN_BYTES:  # a footer that describes another file
            raise OSError(f"bytes {begin}-{stop} were not fetched")
        known_begin, known_stop = max(begin, self._start), min(stop, self._start + len(self._data))
        content = bytearray(stop - begin)
        if known_begin < known_stop:
            known = self._data[known_begin - self._start : known_stop - self._start]
            content[known_begin - begin : known_stop - begin] = known
        self._position = stop
        return bytes(content)
