"""Writing a data set in parts: Ray Data tasks write the shards of a part each, and what is complete survives a kill.

A finished part leaves `_parts/NUMBER.json` (its shards, its rejects) beside the shards. The same command finds it and
does only the rest. At the end the parts become the manifest, `rejects.jsonl` and `samples.png`, and `_parts` goes.
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
import tqdm

from cluster.data.shards import (
    Manifest,
    ShardInfo,
    ShardWriter,
    read_row_group,
    write_manifest,
)
from cluster.session import local_session
from cluster.storage.location import Location, open_uri
from cluster.tasks import map_in_order
from textscanner.data import schema
from textscanner.data.annotations import Reject
from textscanner.data.schema import WordRecord

PARTS_NAME = "_parts"
IDENTITY_NAME = "identity.json"
REJECTS_NAME = "rejects.jsonl"
SAMPLES_NAME = "samples.png"
SAMPLES = 24
# Rows of a part: enough parts to go round many cores, none so small that its start is what takes the time.
PARTS_WANTED, MIN_ROWS, MAX_ROWS = 64, 1024, 65_536
PARTS_PER_CPU = 4  # in one Ray Data execution; bounds what waits in memory


@dataclasses.dataclass(frozen=True)
class BuildSpec:
    """What is written where.

    Attributes:
      identity: what the shards depend on: an unfinished data set of another identity is not gone on with.
      max_shard_bytes: of images, per shard.
    """

    out_uri: str
    identity: dict[str, Any]
    max_shard_bytes: int

    def writer(self, part: int) -> ShardWriter:
        """The shards of a part."""
        return ShardWriter(self.out_uri, part, self.max_shard_bytes)


@dataclasses.dataclass(frozen=True)
class BuildResult:
    """All parts, written.

    Attributes:
      rejects: by reason.
      notes: counts that the parts' work kept.
    """

    shards: list[ShardInfo]
    rejects: dict[str, int]
    notes: dict[str, int]


PartRow = WordRecord | Reject
Work = Callable[[Any], Iterator[PartRow | str]]
"""A part's rows; a string is a thing to be counted under that name."""


def rows_per_part(total: int) -> int:
    """How many rows a part of a data set of `total` rows has."""
    return min(max(math.ceil(total / PARTS_WANTED), MIN_ROWS), MAX_ROWS)


def build(
    destination: BuildSpec,
    parts: Iterable[Any],
    work: Work,
    total: int,
    unit: str,
    verb: str,
    num_cpus: int | None = None,
) -> BuildResult:
    """Writes every part that is not there yet, with a progress bar.

    Args:
      work: picklable; run in a task.
      total: parts' sizes in all, as the bar counts them: parts with `unit` "file", else rows.

    Raises:
      ValueError: as `work`.
      StorageError: storage refuses or does not answer.
    """
    folder = open_uri(destination.out_uri).join(PARTS_NAME)
    done = _complete_parts(folder, destination.identity)
    writing = _WritePart(destination, work)
    with local_session(num_cpus), tqdm.tqdm(total=total, unit=unit, desc=verb) as bar:
        seen = 0
        for leg in _legs(enumerate(parts)):
            seen += len(leg)
            for index in done & {index for index, _ in leg}:
                bar.update(1 if unit == "file" else _rows(json.loads(_part_file(folder, index).read_bytes())))
            todo = [{"index": index, "part": part} for index, part in leg if index not in done]
            for result in map_in_order(writing, todo) if todo else ():
                bar.update(1 if unit == "file" else int(result["rows"]))
    return _collect(destination, folder, seen)


def finish(destination: BuildSpec, built: BuildResult, origin: dict[str, Any]) -> Manifest:
    """Writes the samples, then the manifest: from now on the data set exists."""
    place = open_uri(destination.out_uri)
    place.join(SAMPLES_NAME).write_bytes(_samples(destination.out_uri, built.shards))
    manifest = write_manifest(destination.out_uri, built.shards, reject_counts=built.rejects, origin=origin)
    place.join(PARTS_NAME).delete_tree()
    return manifest


@dataclasses.dataclass(frozen=True)
class _WritePart:
    destination: BuildSpec
    work: Work

    def __call__(self, row: dict[str, Any]) -> dict[str, int]:
        index = int(row["index"])
        writer = self.destination.writer(index)
        rejects: list[Reject] = []
        notes: collections.Counter[str] = collections.Counter()
        for found in self.work(row["part"]):
            if isinstance(found, Reject):
                rejects.append(found)
            elif isinstance(found, str):
                notes[found] += 1
            else:
                writer.add(found)
        told = {
            "shards": [shard.as_dict() for shard in writer.close()],
            "rejects": [dataclasses.asdict(reject) for reject in rejects],
            "notes": notes,
        }
        folder = open_uri(self.destination.out_uri).join(PARTS_NAME)
        _part_file(folder, index).write_bytes(json.dumps(told, ensure_ascii=False).encode())
        return {"index": index, "rows": _rows(told)}


def _rows(told: dict[str, Any]) -> int:
    return sum(shard["num_rows"] for shard in told["shards"]) + len(told["rejects"])


def _part_file(folder: Location, index: int) -> Location:
    return folder.join(f"{index:05d}.json")


def _complete_parts(folder: Location, identity: dict[str, Any]) -> set[int]:
    """Numbers of the parts that an earlier try of the same work has written; another work's are removed."""
    mark = folder.join(IDENTITY_NAME)
    told = json.dumps(identity, indent=2, sort_keys=True).encode()
    if mark.exists() and mark.read_bytes() == told:
        return {int(name.removesuffix(".json")) for name, _ in folder.names() if name[:1].isdigit()}
    folder.delete_tree()
    mark.write_bytes(told)
    return set()


def _legs(parts: Iterator[tuple[int, Any]]) -> Iterator[list[tuple[int, Any]]]:
    leg: list[tuple[int, Any]] = []
    for part in parts:
        leg.append(part)
        if len(leg) >= max(16, PARTS_PER_CPU * ray.cluster_resources().get("CPU", 1)):
            yield leg
            leg = []
    if leg:
        yield leg


def _collect(destination: BuildSpec, folder: Location, num_parts: int) -> BuildResult:
    """Reads what the parts left, one at a time; the list of rejects grows on disk."""
    shards: list[ShardInfo] = []
    reasons: collections.Counter[str] = collections.Counter()
    notes: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryFile() as listing:
        for index in range(num_parts):
            told = json.loads(_part_file(folder, index).read_bytes())
            shards += [ShardInfo.from_dict(shard) for shard in told["shards"]]
            notes.update(told["notes"])
            for reject in told["rejects"]:
                reasons[reject["reason"]] += 1
                listing.write(json.dumps(reject, ensure_ascii=False).encode() + b"\n")
        listing.seek(0)
        open_uri(destination.out_uri).join(REJECTS_NAME).write_bytes(listing.read())
    return BuildResult(shards, dict(reasons.most_common()), dict(notes))


def _samples(dataset_uri: str, shards: list[ShardInfo]) -> bytes:
    """A picture of words spread over the data set with their text and quads."""
    from textscanner.evaluation.visualization import encode_png, labelled_words

    refs = [ref for shard in shards for ref in shard.refs()]
    chosen = refs[:: max(1, len(refs) // 6)][:6]
    each = math.ceil(SAMPLES / len(chosen))
    records: list[WordRecord] = []
    for ref in chosen:
        table = read_row_group(dataset_uri, ref)
        stride = max(1, table.num_rows // each)
        records += schema.from_table(table.take(list(range(0, table.num_rows, stride))[:each]))
    return encode_png(labelled_words(records[:SAMPLES]))
