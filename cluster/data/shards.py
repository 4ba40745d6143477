"""Prepared data sets: Parquet shards plus a manifest that is written last.

A folder without `manifest.json` is not a data set: a writer that died leaves shards that nobody reads. The manifest
names every shard with its size, and every row group with its place in the shard and its SHA-256. So ingest plans
without opening a shard, fetches a row group in one request, and knows a flipped byte before it is trained on.
"""

from __future__ import annotations

import collections
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
from cluster.errors import StorageError
from cluster.storage.location import open_uri
from textscanner.data import schema
from textscanner.data.schema import DATASET_MANIFEST_NAME, SCHEMA_VERSION, WordRecord

ROW_GROUP_ROWS = 256
SHARD_NAME = re.compile(r"shard-[0-9-]+\.parquet")


@dataclasses.dataclass(frozen=True)
class RowGroup:
    """Rows of a shard that are fetched together: bytes `start:stop` of the file."""

    num_rows: int
    start: int
    stop: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class RowGroupRef:
    """All that is needed to fetch a row group: `index` in its shard, whose footer begins at `footer_start`."""

    shard: str
    shard_bytes: int
    footer_start: int
    index: int
    group: RowGroup


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """What the manifest says of a shard.

    Attributes:
      row_groups: in order; what is behind the last one is the Parquet footer.
      characters: how often each character occurs in the labels.
      num_with_quads: rows whose character quads are known.
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
        """As it stands in the manifest."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> ShardInfo:
        """What `as_dict` gave."""
        return cls(**{**told, "row_groups": tuple(RowGroup(**group) for group in told["row_groups"])})

    def refs(self) -> Iterator[RowGroupRef]:
        """Its row groups, in order."""
        for i, group in enumerate(self.row_groups):
            yield RowGroupRef(self.name, self.num_bytes, self.row_groups[-1].stop, i, group)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A data set.

    Attributes:
      reject_counts: rows that were left out, by reason.
      origin: how the set was made, for people.
    """

    schema_version: int
    shards: tuple[ShardInfo, ...]
    reject_counts: dict[str, int]
    origin: dict[str, Any]

    @property
    def num_rows(self) -> int:
        """Rows over all shards."""
        return sum(shard.num_rows for shard in self.shards)

    @property
    def characters(self) -> dict[str, int]:
        """How often each character occurs in the labels, most frequent first."""
        counts: collections.Counter[str] = collections.Counter()
        for shard in self.shards:
            counts.update(shard.characters)
        return dict(counts.most_common())

    @property
    def content_hash(self) -> str:
        """A SHA-256 over the shards' hashes: equal for equal content."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()


def prepare_destination(dataset_uri: str, overwrite: bool = False) -> None:
    """Makes sure that a new data set may be written here; removes the old one, manifest first, when overwriting.

    Raises:
      ValueError: a data set is there and `overwrite` is false.
    """
    place = open_uri(dataset_uri)
    if not place.join(DATASET_MANIFEST_NAME).exists():
        return
    if not overwrite:
        raise ValueError(f"{dataset_uri} holds a data set: give another --out, or --overwrite to replace it")
    place.join(DATASET_MANIFEST_NAME).delete()
    for name, is_folder in place.names():
        if not is_folder and SHARD_NAME.fullmatch(name):
            place.join(name).delete()


class ShardWriter:
    """The shards of one part of a data set: a new one is begun when `max_bytes` of images are in memory."""

    def __init__(self, dataset_uri: str, part: int, max_bytes: int) -> None:
        self._uri, self._part, self._max_bytes = dataset_uri, part, max_bytes
        self._records: list[WordRecord] = []
        self._held = 0
        self.shards: list[ShardInfo] = []

    def add(self, record: WordRecord) -> None:
        """Takes a record."""
        self._records.append(record)
        self._held += len(record.image)
        if self._held >= self._max_bytes:
            self._flush()

    def close(self) -> list[ShardInfo]:
        """Writes what is left; all shards."""
        if self._records:
            self._flush()
        return self.shards

    def _flush(self) -> None:
        self.shards.append(write_shard(self._uri, f"{self._part:05d}-{len(self.shards):03d}", self._records))
        self._records, self._held = [], 0


def write_shard(dataset_uri: str, number: str, records: list[WordRecord]) -> ShardInfo:
    """Writes one shard; the same records give the same bytes."""
    name = f"shard-{number}.parquet"
    sink = pa.BufferOutputStream()
    # Images are compressed already: packing and statistics would cost time and give nothing.
    pq.write_table(
        schema.to_table(records),
        sink,
        row_group_size=ROW_GROUP_ROWS,
        compression={schema.IMAGE: "none", schema.TEXT: "zstd", schema.SOURCE: "zstd", schema.QUADS: "zstd"},
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
    """Writes the manifest: from now on the data set exists."""
    ordered = tuple(sorted((shard for shard in shards if shard.num_rows), key=lambda shard: shard.name))
    manifest = Manifest(SCHEMA_VERSION, ordered, dict(reject_counts), dict(origin))
    told = {
        "schema_version": manifest.schema_version,
        "num_rows": manifest.num_rows,
        "characters": manifest.characters,
        "reject_counts": manifest.reject_counts,
        "origin": manifest.origin,
        "shards": [shard.as_dict() for shard in ordered],
    }
    text = json.dumps(told, indent=2, ensure_ascii=False)
    open_uri(dataset_uri).join(DATASET_MANIFEST_NAME).write_bytes(text.encode())
    return manifest


def is_dataset(uri: str) -> bool:
    """Whether a prepared data set is there."""
    return open_uri(uri).join(DATASET_MANIFEST_NAME).exists()


def read_manifest(dataset_uri: str) -> Manifest:
    """The manifest of a data set.

    Raises:
      ValueError: there is none, or it is damaged or of another version.
    """
    location = open_uri(dataset_uri).join(DATASET_MANIFEST_NAME)
    if not location.exists():
        raise ValueError(
            f"{dataset_uri} is not a prepared data set (no {DATASET_MANIFEST_NAME}): make one with "
            f"`python -m jobs.prepare SOURCE --out {dataset_uri}` or `python -m jobs.render --out {dataset_uri} ...`"
        )
    try:
        return _parse_manifest(location.uri, json.loads(location.read_bytes()))
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{location.uri} is damaged ({error}): restore it, or prepare the data set again") from None


def _parse_manifest(uri: str, told: dict[str, Any]) -> Manifest:
    if told.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"{uri} has schema version {told.get('schema_version')}, this program reads {SCHEMA_VERSION}: "
            "prepare the data set again"
        )
    shards = tuple(ShardInfo.from_dict(shard) for shard in told["shards"])
    return Manifest(told["schema_version"], shards, told["reject_counts"], told["origin"])


def read_row_group(dataset_uri: str, ref: RowGroupRef, cache: RowGroupCache | None = None) -> pa.Table:
    """One row group of a shard, checked against the manifest.

    Raises:
      ValueError: the shard is missing, cut off or damaged.
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
    """All records of a data set in storage order, a row group in memory at a time.

    Raises:
      ValueError: as `read_manifest` and `read_row_group`.
    """
    for shard in read_manifest(dataset_uri).shards:
        for ref in shard.refs():
            yield from schema.from_table(read_row_group(dataset_uri, ref))


def _fetch(dataset_uri: str, name: str, group: RowGroup) -> bytes:
    """The bytes of a row group; fetched once more if they are not what the manifest says."""
    for _ in range(2):
        data = _read_range(dataset_uri, name, group.start, group.stop)
        if hashlib.sha256(data).hexdigest() == group.sha256:
            return data
    raise ValueError(
        f"{dataset_uri}/{name}, bytes {group.start}-{group.stop}: their SHA-256 is not the manifest's; the shard is "
        "damaged: restore it, or prepare the set again"
    )


@functools.lru_cache(maxsize=512)
def _footer(dataset_uri: str, name: str, start: int, stop: int) -> pq.FileMetaData:
    data = _read_range(dataset_uri, name, start, stop)
    try:
        return pq.read_metadata(pa.PythonFile(_Window(data, start, stop), mode="r"))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{dataset_uri}/{name}: its end is damaged ({error}): prepare the set again") from None


def _read_range(dataset_uri: str, name: str, start: int, stop: int) -> bytes:
    try:
        return open_uri(dataset_uri).join(name).read_bytes(start, stop)
    except StorageError as error:
        raise ValueError(f"shard {name}: {error}; the shard is missing, cut off or out of reach") from None


def _row_groups(data: bytes) -> tuple[RowGroup, ...]:
    """Where the row groups of a Parquet file are."""
    footer = pq.read_metadata(pa.BufferReader(data))
    found = []
    for i in range(footer.num_row_groups):
        group = footer.row_group(i)
        chunks = [group.column(j) for j in range(group.num_columns)]
        start = min(c.dictionary_page_offset or c.data_page_offset for c in chunks)
        stop = start + sum(c.total_compressed_size for c in chunks)
        found.append(RowGroup(group.num_rows, start, stop, hashlib.sha256(data[start:stop]).hexdigest()))
    return tuple(found)


class _Window(io.RawIOBase):
    """A file of `size` bytes of which only a part is at hand; the rest, which nobody asks for in earnest, is zero."""

    def __init__(self, data: bytes, start: int, size: int) -> None:
        super().__init__()
        self._data, self._start, self._size = memoryview(data), start, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        begin, stop = self._at, self._size if size < 0 else min(self._at + size, self._size)
        low, high = max(begin, self._start), min(stop, self._start + len(self._data))
        part = bytearray(stop - begin)
        if low < high:
            part[low - begin : high - begin] = self._data[low - self._start : high - self._start]
        self._at = stop
        return bytes(part)
