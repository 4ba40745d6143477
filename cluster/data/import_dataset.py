"""Labelled images -> a data set. Ray Data tasks read, check and write one part each; rejected rows are listed.

An importer (`cluster/data/importers`) reads the rows of a part, and each row is checked here. Order and parts follow
the source, so the same source gives the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from cluster.data.dataset_writer import (
    FILE_UNIT,
    REJECTS_NAME,
    BuildResult,
    BuildSpec,
    PartRow,
    build_shards,
    finalize,
    rows_per_part,
)
from cluster.data.importers.packed import TarShards
from cluster.data.importers.registry import open_source
from cluster.data.importers.source import Source
from cluster.data.prepare_settings import PrepareSettings
from cluster.data.shards import Manifest, prepare_destination
from cluster.storage.location import absolute_uri, open_uri
from textscanner.data.annotations import Reject, Word, to_record
from textscanner.data.schema import WordRecord
from textscanner.errors import UserError

UNKNOWN_COUNT = "rows_with_unknown_characters"


def prepare_dataset(source_uri: str, out_uri: str, settings: PrepareSettings, *, overwrite: bool = False) -> Manifest:
    """Imports labelled images, with a progress bar. The same call resumes an interrupted one.

    Args:
      source_uri: folder, file, zip or object storage prefix with labelled images.
      out_uri: folder or object storage prefix of the new data set.
      overwrite: replaces an existing data set.

    Raises:
      UserError: the source cannot be read, the data set exists already, or too many rows are rejected.
      StorageError: storage refuses or does not answer.
    """
    source_uri, out_uri = absolute_uri(source_uri), absolute_uri(out_uri)
    source = open_source(source_uri, settings.format, split=settings.split, label_file=settings.labels)
    total = source.count()
    if not total:
        raise UserError(f"{source_uri} has no row" + (f" of split {settings.split!r}" if settings.split else ""))
    spec = BuildSpec(out_uri, _identity(source, total, settings), settings.shard_mib << 20)
    prepare_destination(out_uri, overwrite)
    result = build_shards(
        spec,
        source.parts(rows_per_part(total)),
        _ImportPart(source, settings),
        total=total,
        unit=FILE_UNIT if isinstance(source, TarShards) else "word",
        description="prepare",
    )
    _check_rejects(source_uri, out_uri, result, settings.max_reject_share)
    origin: dict[str, Any] = {
        "made_by": "jobs.prepare",
        "source": source_uri.rstrip("/").rsplit("/", 1)[-1],
        "split": settings.split,
        "case": settings.case,
        UNKNOWN_COUNT: result.counts.get(UNKNOWN_COUNT, 0),
    }
    return finalize(spec, result, origin)


def _identity(source: Source, num_rows: int, settings: PrepareSettings) -> dict[str, Any]:
    """Everything that the shards depend on; `max_reject_share` is not among it."""
    return {
        "source": repr(source),
        "version": source.version(),
        "rows": num_rows,
        "charset": settings.charset.characters,
        "max_label_length": settings.max_label_length,
        "unknown": settings.unknown,
        "case": settings.case,
        "shard_mib": settings.shard_mib,
    }


def _check_rejects(source_uri: str, out_uri: str, result: BuildResult, max_reject_share: float) -> None:
    """Raises a UserError if no row remains or too many rows are rejected."""
    num_accepted = sum(shard.num_rows for shard in result.shards)
    num_rejected = sum(result.reject_counts.values())
    total = num_accepted + num_rejected
    if num_accepted == 0 or num_rejected / total > max_reject_share:
        reasons = ", ".join(f"{reason} {count}" for reason, count in result.reject_counts.items())
        raise UserError(
            f"max_reject_share is {max_reject_share:g}: {num_rejected} of {total} rows of {source_uri} are rejected "
            f"({reasons}); they are listed in {open_uri(out_uri).join(REJECTS_NAME).uri}"
        )


@dataclasses.dataclass(frozen=True)
class _ImportPart:
    source: Source
    settings: PrepareSettings

    def __call__(self, part: Any) -> Iterator[PartRow | str]:
        for row in self.source.read(part):
            record = row if isinstance(row, Reject) else self._record(row)
            if isinstance(record, Reject):
                yield record
                continue
            unknown = self.settings.charset.unknown_characters(record.text)
            if unknown and self.settings.unknown == "reject":
                yield Reject(record.source, "unknown_character", f"{unknown} in {record.text!r}")
                continue
            if unknown:
                yield UNKNOWN_COUNT
            yield record

    def _record(self, word: Word) -> WordRecord | Reject:
        return to_record(word, self.settings.max_label_length, case_known=self.settings.case == "known")
