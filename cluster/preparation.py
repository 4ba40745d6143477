"""Labelled images -> a data set: rows checked and written shard by shard in Ray Data tasks, rejects listed.

The label file is read once by the driver; a task takes a range of its rows, reads and checks the images and writes one
shard. Order and shard limits follow the label file, so the same source gives the same bytes.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
from typing import Any

import tqdm

from cluster.session import local_session
from cluster.shards import Manifest, ShardInfo, prepare_destination, write_manifest, write_shard
from cluster.storage import absolute_uri, open_uri
from cluster.tasks import map_in_order
from textscanner.annotations import Label, Reject, open_source, read_labels, to_record
from textscanner.charset import Charset
from textscanner.schema import WordRecord

ROWS_PER_SHARD = 4096
REJECTS_NAME = "rejects.jsonl"


@dataclasses.dataclass(frozen=True)
class PrepareSettings:
    """What is taken.

    Attributes:
      split: only rows of this split.
      max_length: longer labels are set aside.
      unknown: rows with characters outside the charset are kept as annotated (training maps the character to the
        class "unknown", scoring leaves it out), or rejected.
      max_reject_share: more rejects than this end the job.
    """

    charset: Charset
    split: str | None = None
    max_length: int = 30
    unknown: str = "keep"
    max_reject_share: float = 0.5


def prepare_dataset(source: str, out_uri: str, settings: PrepareSettings, overwrite: bool = False) -> Manifest:
    """Writes the data set.

    Raises:
      ValueError: the source cannot be read, the destination is taken, or too little remains.
    """
    source, out_uri = absolute_uri(source), absolute_uri(out_uri)
    labels, rejects = _labels(source, settings)
    if not labels and not rejects:
        raise ValueError(f"{source} has no row" + (f" of split {settings.split!r}" if settings.split else ""))
    prepare_destination(out_uri, overwrite)
    parts = [
        {"index": i, "labels": labels[start : start + ROWS_PER_SHARD]}
        for i, start in enumerate(range(0, len(labels), ROWS_PER_SHARD))
    ]
    infos: list[ShardInfo] = []
    unknown = 0
    if parts:
        with local_session(), tqdm.tqdm(total=len(labels), unit="word", desc="prepare") as bar:
            for part in map_in_order(functools.partial(_write_part, source, out_uri, settings), parts):
                infos.append(part["info"])
                rejects += part["rejects"]
                unknown += part["unknown"]
                bar.update(part["info"].num_rows + len(part["rejects"]))
    return _finish(source, out_uri, settings, infos, rejects, unknown)


def _labels(source: str, settings: PrepareSettings) -> tuple[list[Label], list[Reject]]:
    rows = list(read_labels(open_source(source), source, settings.split))
    return [row for row in rows if isinstance(row, Label)], [row for row in rows if isinstance(row, Reject)]


def _write_part(source: str, out_uri: str, settings: PrepareSettings, part: dict[str, Any]) -> dict[str, Any]:
    files = open_source(source)
    records: list[WordRecord] = []
    rejects: list[Reject] = []
    unknown = 0
    for label in part["labels"]:
        record = to_record(label, files, settings.max_length)
        strange = settings.charset.unknown(record.text) if not isinstance(record, Reject) else []
        unknown += bool(strange)
        if strange and settings.unknown == "reject":
            record = Reject(label.file, "unknown_character", f"{strange} in {label.text!r}")
        if isinstance(record, Reject):
            rejects.append(record)
        else:
            records.append(record)
    return {"info": write_shard(out_uri, int(part["index"]), records), "rejects": rejects, "unknown": unknown}


def _finish(
    source: str,
    out_uri: str,
    settings: PrepareSettings,
    infos: list[ShardInfo],
    rejects: list[Reject],
    unknown: int,
) -> Manifest:
    kept = sum(info.num_rows for info in infos)
    reasons: dict[str, int] = dict(collections.Counter(str(r.reason) for r in rejects).most_common())
    lines = "".join(json.dumps(dataclasses.asdict(r), ensure_ascii=False) + "\n" for r in rejects)
    listing = open_uri(out_uri).join(REJECTS_NAME)
    listing.write_bytes(lines.encode())
    share = len(rejects) / (kept + len(rejects))
    if kept == 0 or share > settings.max_reject_share:
        raise ValueError(
            f"{source}: {len(rejects)} of {kept + len(rejects)} rows were set aside ({reasons}), more than "
            f"--max-reject-share {settings.max_reject_share:g} allows; they are listed in {listing.uri}"
        )
    origin = {"made_by": "jobs.prepare", "source": source.rstrip("/").rsplit("/", 1)[-1], "split": settings.split}
    return write_manifest(out_uri, infos, set_aside=reasons, origin=origin | {"rows_with_unknown_characters": unknown})
