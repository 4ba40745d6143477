"""Labelled images -> a data set: rows read, checked and written part by part in Ray Data tasks, rejects listed.

What an importer finds in a part (`cluster/data/importers`) is checked here, row by row. Order and parts follow the
source, so the same source gives the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from cluster.data.dataset_writer import REJECTS_NAME, BuildSpec, PartRow, build, finish, rows_per_part
from cluster.data.importers.packed import TarShards
from cluster.data.importers.registry import open_source
from cluster.data.importers.source import Source
from cluster.data.shards import Manifest, prepare_destination
from cluster.storage.location import absolute_uri, open_uri
from textscanner.charset import Charset
from textscanner.data.annotations import Reject, to_record

UNKNOWN_NOTE = "rows_with_unknown_characters"


@dataclasses.dataclass(frozen=True)
class PrepareSettings:
    """What is taken, and how it is stored.

    Attributes:
      format: one of `sources.FORMATS`.
      split: only rows of this split.
      labels: the label file's name, None for the format's usual one.
      max_label_length: longer labels are set aside.
      unknown: rows with characters outside the charset are kept as annotated (training maps the character to the
        class "unknown", scoring leaves it out), or rejected.
      max_reject_share: more rejects than this end the job.
      shard_mib: images per shard at most.
    """

    charset: Charset
    format: str = "auto"
    split: str | None = None
    labels: str | None = None
    max_label_length: int = 30
    unknown: str = "keep"
    max_reject_share: float = 0.5
    shard_mib: int = 128

    def __post_init__(self) -> None:
        if not 1 <= self.shard_mib <= 1024:
            raise ValueError(f"--shard-mib is {self.shard_mib}: must be 1 to 1024; 64 to 256 suit object stores")
        if not 0 <= self.max_reject_share <= 1:
            raise ValueError(f"--max-reject-share is {self.max_reject_share}: must be 0 to 1")


def prepare_dataset(source_uri: str, out_uri: str, settings: PrepareSettings, overwrite: bool = False) -> Manifest:
    """Writes the data set; goes on where an earlier try with the same arguments ended.

    Raises:
      ValueError: the source cannot be read, the destination is taken, or too little remains.
      StorageError: storage refuses or does not answer.
    """
    source_uri, out_uri = absolute_uri(source_uri), absolute_uri(out_uri)
    source = open_source(source_uri, settings.format, split=settings.split, label_file=settings.labels)
    total = source.count()
    if not total:
        raise ValueError(f"{source_uri} has no row" + (f" of split {settings.split!r}" if settings.split else ""))
    identity = {
        "source": repr(source),
        "version": source.version(),
        "rows": total,
        "charset": settings.charset.characters,
    }
    identity |= {name: getattr(settings, name) for name in ("max_label_length", "unknown", "shard_mib")}
    destination = BuildSpec(out_uri, identity, settings.shard_mib << 20)
    prepare_destination(out_uri, overwrite)
    unit = "file" if isinstance(source, TarShards) else "word"
    parts = source.parts(rows_per_part(total))
    built = build(destination, parts, _Check(source, settings), total, unit, "prepare")
    kept, rejected = sum(shard.num_rows for shard in built.shards), sum(built.rejects.values())
    if kept == 0 or rejected / (kept + rejected) > settings.max_reject_share:
        raise ValueError(
            f"{source_uri}: {rejected} of {kept + rejected} rows were set aside ({built.rejects}), more than "
            f"--max-reject-share {settings.max_reject_share:g} allows; they are listed in "
            f"{open_uri(out_uri).join(REJECTS_NAME).uri}"
        )
    origin: dict[str, Any] = {
        "made_by": "jobs.prepare",
        "source": source_uri.rstrip("/").rsplit("/", 1)[-1],
        "split": settings.split,
        UNKNOWN_NOTE: built.notes.get(UNKNOWN_NOTE, 0),
    }
    return finish(destination, built, origin)


@dataclasses.dataclass(frozen=True)
class _Check:
    source: Source
    settings: PrepareSettings

    def __call__(self, part: Any) -> Iterator[PartRow | str]:
        for found in self.source.read(part):
            record = found if isinstance(found, Reject) else to_record(found, self.settings.max_label_length)
            if isinstance(record, Reject):
                yield record
                continue
            strange = self.settings.charset.unknown_characters(record.text)
            if strange and self.settings.unknown == "reject":
                yield Reject(record.source, "unknown_character", f"{strange} in {record.text!r}")
                continue
            if strange:
                yield UNKNOWN_NOTE
            yield record
