"""Writes a data set in parts: each Ray Data task writes the shards of one part, and complete parts survive a kill.

A complete part leaves `_parts/NUMBER.json` (its shards and rejects) beside the shards. A later call for the same data
set finds these files and writes only the missing parts. At the end, the parts are merged into the manifest,
`rejects.jsonl` and `samples.png`, and `_parts` is deleted.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray

from cluster.data.shards import Manifest, ShardInfo, ShardWriter, read_row_group, write_manifest
from cluster.progress_bar import progress_bar
from cluster.session import local_session
from cluster.storage.location import Location, open_uri
from cluster.tasks import map_in_order
from textscanner.data import schema
from textscanner.data.annotations import Reject
from textscanner.data.schema import SCHEMA_VERSION, WordRecord

PARTS_NAME = "_parts"
IDENTITY_NAME = "identity.json"
REJECTS_NAME = "rejects.jsonl"
SAMPLES_NAME = "samples.png"
NUM_SAMPLES = 24
# Enough parts to keep many cores busy, none so small that starting its task takes most of the time.
TARGET_NUM_PARTS, MIN_PART_ROWS, MAX_PART_ROWS = 64, 1024, 65_536
# Parts per Ray Data execution: bounds what waits in memory.
PARTS_PER_CPU, MIN_PARTS_PER_EXECUTION = 4, 16
FILE_UNIT = "file"  # progress unit of sources whose parts are files with an unknown number of rows


@dataclasses.dataclass(frozen=True)
class BuildSpec:
    """A data set to write.

    Attributes:
      identity: everything that the shards depend on; complete parts are reused only if it is the same.
      max_shard_bytes: size limit of the images of a shard.
    """

    out_uri: str
    identity: dict[str, Any]
    max_shard_bytes: int


@dataclasses.dataclass(frozen=True)
class BuildResult:
    """All parts of a data set.

    Attributes:
      reject_counts: number of rejected rows by reason, most frequent first.
      counts: number of rows that the part function counted, by name.
    """

    shards: list[ShardInfo]
    reject_counts: dict[str, int]
    counts: dict[str, int]


PartRow = WordRecord | Reject
PartFunction = Callable[[Any], Iterator[PartRow | str]]
"""Yields the rows of a part. A string increments the count of that name."""


def rows_per_part(num_rows: int) -> int:
    """Size of the parts of a data set of `num_rows` rows."""
    return min(max(math.ceil(num_rows / TARGET_NUM_PARTS), MIN_PART_ROWS), MAX_PART_ROWS)


def build_shards(
    spec: BuildSpec,
    parts: Iterable[Any],
    part_function: PartFunction,
    *,
    total: int,
    unit: str,
    description: str,
    num_cpus: int | None = None,
) -> BuildResult:
    """Writes every part that is not complete yet, with a progress bar.

    Args:
      parts: in the same order on every call; each must be picklable.
      part_function: must be picklable; runs in a Ray task.
      total: size of all parts in units.
      unit: FILE_UNIT counts parts, anything else counts rows.
      description: label of the progress bar.
      num_cpus: CPUs of a cluster that this call starts; all cores by default.

    Raises:
      UserError: as `part_function`.
      StorageError: storage refuses or does not answer.
    """
    folder = open_uri(spec.out_uri).join(PARTS_NAME)
    complete = _complete_parts(folder, spec.identity)
    write_part = _WritePart(spec, part_function)
    num_parts = 0
    with local_session(num_cpus), progress_bar(description, total, unit) as advance:
        for batch in _batch_parts(enumerate(parts)):
            num_parts += len(batch)
            for index in complete & {index for index, _ in batch}:
                advance(1 if unit == FILE_UNIT else _num_rows(json.loads(_part_file(folder, index).read_bytes())))
            missing = [{"index": index, "part": part} for index, part in batch if index not in complete]
            for result in map_in_order(write_part, missing) if missing else ():
                advance(1 if unit == FILE_UNIT else int(result["rows"]))
    return _collect(spec, folder, num_parts)


def finalize(spec: BuildSpec, result: BuildResult, origin: dict[str, Any]) -> Manifest:
    """Writes the samples, then the manifest, which makes the shards a data set."""
    location = open_uri(spec.out_uri)
    location.join(SAMPLES_NAME).write_bytes(_draw_samples(spec.out_uri, result.shards))
    manifest = write_manifest(spec.out_uri, result.shards, reject_counts=result.reject_counts, origin=origin)
    location.join(PARTS_NAME).delete_tree()
    return manifest


@dataclasses.dataclass(frozen=True)
class _WritePart:
    spec: BuildSpec
    part_function: PartFunction

    def __call__(self, row: dict[str, Any]) -> dict[str, int]:
        index = int(row["index"])
        writer = ShardWriter(self.spec.out_uri, index, self.spec.max_shard_bytes)
        rejects: list[Reject] = []
        counts: collections.Counter[str] = collections.Counter()
        for result in self.part_function(row["part"]):
            if isinstance(result, Reject):
                rejects.append(result)
            elif isinstance(result, str):
                counts[result] += 1
            else:
                writer.add(result)
        summary = {
            "shards": [shard.as_dict() for shard in writer.close()],
            "rejects": [dataclasses.asdict(reject) for reject in rejects],
            "counts": counts,
        }
        # Written last: a part without this file is written again.
        folder = open_uri(self.spec.out_uri).join(PARTS_NAME)
        _part_file(folder, index).write_bytes(json.dumps(summary, ensure_ascii=False).encode())
        return {"index": index, "rows": _num_rows(summary)}


def _num_rows(summary: dict[str, Any]) -> int:
    """Rows of a part's summary, rejected ones included."""
    return sum(int(shard["num_rows"]) for shard in summary["shards"]) + len(summary["rejects"])


def _part_file(folder: Location, index: int) -> Location:
    return folder.join(f"{index:05d}.json")


def _complete_parts(folder: Location, identity: dict[str, Any]) -> set[int]:
    """Indices of the parts that an earlier call for the same data set completed; parts of another one are deleted."""
    identity_file = folder.join(IDENTITY_NAME)
    # Shards of an earlier schema have other columns.
    content = json.dumps(identity | {"schema_version": SCHEMA_VERSION}, indent=2, sort_keys=True).encode()
    if identity_file.exists() and identity_file.read_bytes() == content:
        return {int(name.removesuffix(".json")) for name, _ in folder.names() if name[:1].isdigit()}
    folder.delete_tree()
    identity_file.write_bytes(content)
    return set()


def _batch_parts(parts: Iterator[tuple[int, Any]]) -> Iterator[list[tuple[int, Any]]]:
    """Groups parts into Ray Data executions, by the size that the cluster has now: it may grow in the meantime."""
    batch: list[tuple[int, Any]] = []
    for part in parts:
        batch.append(part)
        num_cpus: float = ray.cluster_resources().get("CPU", 1)
        if len(batch) >= max(MIN_PARTS_PER_EXECUTION, PARTS_PER_CPU * num_cpus):
            yield batch
            batch = []
    if batch:
        yield batch


def _collect(spec: BuildSpec, folder: Location, num_parts: int) -> BuildResult:
    """Merges the parts' summaries, one in memory at a time; the list of rejects grows on disk."""
    shards: list[ShardInfo] = []
    reject_counts: collections.Counter[str] = collections.Counter()
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryFile() as reject_lines:
        for index in range(num_parts):
            summary = json.loads(_part_file(folder, index).read_bytes())
            shards += [ShardInfo.from_dict(shard) for shard in summary["shards"]]
            counts.update(summary["counts"])
            for reject in summary["rejects"]:
                reject_counts[reject["reason"]] += 1
                reject_lines.write(json.dumps(reject, ensure_ascii=False).encode() + b"\n")
        reject_lines.seek(0)
        open_uri(spec.out_uri).join(REJECTS_NAME).write_bytes(reject_lines.read())
    return BuildResult(shards, dict(reject_counts.most_common()), dict(counts))


def _draw_samples(dataset_uri: str, shards: list[ShardInfo]) -> bytes:
    """A PNG with words from all over the data set, their text and their quads."""
    from textscanner.evaluation.visualization import encode_png, labelled_words

    refs = [ref for shard in shards for ref in shard.refs()]
    sampled_refs = refs[:: max(1, len(refs) // 6)][:6]
    words_per_group = math.ceil(NUM_SAMPLES / len(sampled_refs))
    records: list[WordRecord] = []
    for ref in sampled_refs:
        table = read_row_group(dataset_uri, ref)
        stride = max(1, table.num_rows // words_per_group)
        records += schema.from_table(table.take(list(range(0, table.num_rows, stride))[:words_per_group]))
    return encode_png(labelled_words(records[:NUM_SAMPLES]))
