"""Prepared data sets: Parquet shards plus a manifest that is written last.

A folder without `manifest.json` is not a data set: a writer that died leaves shards that nobody reads. The manifest
names every shard with its size, SHA-256 and row groups, so that ingest can plan without opening one.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage import Location, open_uri
from textscanner import schema
from textscanner.schema import MANIFEST_NAME, SCHEMA_VERSION, WordRecord

ROW_GROUP_ROWS = 256


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """What the manifest says of a shard.

    Attributes:
      characters: how often each character occurs in the labels.
      num_with_quads: rows whose character quads are known.
    """

    name: str
    num_rows: int
    num_bytes: int
    sha256: str
    row_group_rows: tuple[int, ...]
    characters: dict[str, int]
    num_with_quads: int
    max_length: int


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A data set.

    Attributes:
      set_aside: rows that were left out, by reason.
      origin: how the set was made, for people.
    """

    schema_version: int
    shards: tuple[ShardInfo, ...]
    set_aside: dict[str, int]
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
    """Makes sure that a new data set may be written here; removes the old manifest first when overwriting.

    Raises:
      ValueError: a data set is there and `overwrite` is false.
    """
    manifest = open_uri(dataset_uri).join(MANIFEST_NAME)
    if not manifest.exists():
        return
    if not overwrite:
        raise ValueError(f"{dataset_uri} holds a data set: give another --out, or --overwrite to replace it")
    manifest.delete()


def write_shard(dataset_uri: str, shard_index: int, records: list[WordRecord]) -> ShardInfo:
    """Writes one shard; the same records give the same bytes."""
    name = f"shard-{shard_index:05d}.parquet"
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
    groups = tuple(min(ROW_GROUP_ROWS, len(records) - i) for i in range(0, len(records), ROW_GROUP_ROWS))
    return ShardInfo(
        name=name,
        num_rows=len(records),
        num_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        row_group_rows=groups,
        characters=dict(sorted(counts.items())),
        num_with_quads=sum(record.quads is not None for record in records),
        max_length=max((len(record.text) for record in records), default=0),
    )


def write_manifest(
    dataset_uri: str, shards: list[ShardInfo], *, set_aside: dict[str, int], origin: dict[str, Any]
) -> Manifest:
    """Writes the manifest: from now on the data set exists."""
    ordered = tuple(sorted((shard for shard in shards if shard.num_rows), key=lambda shard: shard.name))
    manifest = Manifest(SCHEMA_VERSION, ordered, dict(set_aside), dict(origin))
    told = {
        "schema_version": manifest.schema_version,
        "num_rows": manifest.num_rows,
        "characters": manifest.characters,
        "set_aside": manifest.set_aside,
        "origin": manifest.origin,
        "shards": [dataclasses.asdict(shard) for shard in ordered],
    }
    text = json.dumps(told, indent=2, ensure_ascii=False)
    open_uri(dataset_uri).join(MANIFEST_NAME).write_bytes(text.encode())
    return manifest


def is_dataset(uri: str) -> bool:
    """Whether a prepared data set is there."""
    return open_uri(uri).join(MANIFEST_NAME).exists()


def read_manifest(dataset_uri: str) -> Manifest:
    """The manifest of a data set.

    Raises:
      ValueError: there is none, or it is of another version.
    """
    location = open_uri(dataset_uri).join(MANIFEST_NAME)
    if not location.exists():
        raise ValueError(
            f"{dataset_uri} is not a prepared data set (no {MANIFEST_NAME}): make one with "
            f"`python -m jobs.prepare SOURCE --out {dataset_uri}` or `python -m jobs.render --out {dataset_uri} ...`"
        )
    told = json.loads(location.read_bytes())
    if told.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"{location.uri} has schema version {told.get('schema_version')}, this program reads {SCHEMA_VERSION}: "
            "prepare the data set again"
        )
    shards = tuple(ShardInfo(**{**shard, "row_group_rows": tuple(shard["row_group_rows"])}) for shard in told["shards"])
    return Manifest(told["schema_version"], shards, told["set_aside"], told["origin"])


def read_row_group(dataset_uri: str, shard_name: str, row_group: int) -> pa.Table:
    """One row group of a shard.

    Raises:
      ValueError: the shard is not there or is not Parquet.
    """
    location = open_uri(dataset_uri).join(shard_name)
    try:
        with _open(location) as file:
            return file.read_row_group(row_group)
    except (pa.ArrowException, OSError, IndexError) as error:
        raise ValueError(
            f"{location.uri}, row group {row_group}: {error}; the shard is missing or damaged, prepare the set again"
        ) from error


def read_records(dataset_uri: str) -> Iterator[WordRecord]:
    """All records of a data set in storage order, a row group in memory at a time.

    Raises:
      ValueError: as `read_manifest` and `read_row_group`.
    """
    for shard in read_manifest(dataset_uri).shards:
        for group in range(len(shard.row_group_rows)):
            yield from schema.from_table(read_row_group(dataset_uri, shard.name, group))


def _open(location: Location) -> pq.ParquetFile:
    return pq.ParquetFile(location.path, filesystem=location.filesystem)
