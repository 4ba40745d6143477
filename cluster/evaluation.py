"""Scoring a reader on whole data sets, in this process or over Ray tasks; the counts are the same.

A source is a prepared data set (a URI with a manifest) or labelled images in any format that `jobs.prepare` knows. Rows
are streamed. Broken images count as read wrong: a recogniser that cannot open an image has not read it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tqdm

import textscanner
from cluster.checkpoints import local_checkpoint
from cluster.importers.source import Source, batched
from cluster.importers.sources import open_source
from cluster.shards import is_dataset, read_manifest, read_records, read_row_group
from cluster.storage import absolute_uri
from textscanner import schema
from textscanner.annotations import Word, clean_text
from textscanner.images import decode
from textscanner.layout import shipped_weights
from textscanner.metrics import WordCounts
from textscanner.reader import READ_BATCH, Reader
from textscanner.schema import WordRecord


@dataclasses.dataclass(frozen=True)
class Score:
    """Counts of a data set; `num_broken` images could not be decoded (they are scored as empty readings)."""

    counts: WordCounts
    num_broken: int

    def __add__(self, other: Score) -> Score:
        return Score(self.counts + other.counts, self.num_broken + other.num_broken)

    def as_dict(self) -> dict[str, float]:
        """What evaluation files hold."""
        return {
            "num_words": int(self.counts.num_words),
            "word_accuracy": self.counts.word_accuracy,
            "one_minus_ned": self.counts.one_minus_ned,
            "char_accuracy": self.counts.char_accuracy,
            "length_accuracy": self.counts.length_accuracy,
            "num_skipped": int(self.counts.num_skipped),
            "num_broken": self.num_broken,
        }


def records_of(source: str, split: str | None = None) -> tuple[Iterator[WordRecord], int]:
    """The records of a source, and how many rows it has.

    Raises:
      ValueError: it is neither a data set nor labelled images of a known format, or holds nothing.
    """
    if is_dataset(source):
        return read_records(source), read_manifest(source).num_rows
    labelled = open_source(source, split=split)
    count = labelled.count()
    if not count:
        raise ValueError(f"{source} has no labelled row" + (f" of split {split!r}" if split else ""))
    return _unchecked(labelled), count


def _unchecked(labelled: Source) -> Iterator[WordRecord]:
    """Every word: one that has no usable image is still a word that was not read, one without a text is skipped."""
    for part in labelled.parts(READ_BATCH):
        for row in labelled.read(part):
            if isinstance(row, Word):
                yield WordRecord(row.image or b"", clean_text(row.text), None, row.source)


def score_records(reader: Reader, records: Iterable[WordRecord]) -> Score:
    """The score of one batch or stream of records, READ_BATCH in memory at a time."""
    total = Score(WordCounts(), 0)
    for batch in batched(records, READ_BATCH):
        images = [_image(record) for record in batch]
        known = [image for image in images if image is not None]
        texts = iter(reading.text for reading in reader.read(known))
        readings = ["" if image is None else next(texts) for image in images]
        total += Score(WordCounts.from_pairs([r.text for r in batch], readings), len(images) - len(known))
    return total


def evaluate(checkpoint: str, source: str, split: str | None = None, num_workers: int = 0) -> Score:
    """Scores a checkpoint folder on a source; a prepared set with `num_workers` over so many Ray tasks at a time.

    Raises:
      ValueError: the checkpoint or the source cannot be read.
    """
    source = absolute_uri(source)
    if checkpoint not in shipped_weights():
        checkpoint = absolute_uri(checkpoint)
    if num_workers:
        return _evaluate_on_ray(checkpoint, source, num_workers)
    reader = textscanner.load(local_checkpoint(checkpoint))
    records, count = records_of(source, split)
    with tqdm.tqdm(total=count, unit="image", desc=source[-40:]) as bar:
        return score_records(reader, _told(records, bar))


def _told(records: Iterable[WordRecord], bar: tqdm.tqdm) -> Iterator[WordRecord]:
    for record in records:
        yield record
        bar.update(1)


def _image(record: WordRecord) -> np.ndarray | None:
    try:
        return decode(record.image, record.source)
    except ValueError:
        return None


def _evaluate_on_ray(checkpoint: str, source: str, num_workers: int) -> Score:
    from cluster.session import local_session
    from cluster.tasks import map_in_order

    manifest = read_manifest(source)
    groups = [{"ref": ref} for shard in manifest.shards for ref in shard.refs()]
    total = Score(WordCounts(), 0)
    with local_session(), tqdm.tqdm(total=manifest.num_rows, unit="image", desc=source[-40:]) as bar:
        for row in map_in_order(functools.partial(_score_group, checkpoint, source), groups, num_workers):
            total += row["score"]
            bar.update(row["rows"])
    return total


def _score_group(checkpoint: str, source: str, row: dict[str, Any]) -> dict[str, Any]:
    records = schema.from_table(read_row_group(source, row["ref"]))
    return {"score": score_records(_reader(checkpoint), records), "rows": len(records)}


@functools.lru_cache(maxsize=1)
def _reader(checkpoint: str) -> Reader:
    """Loaded once per worker process: Ray runs later tasks in the same ones."""
    return textscanner.load(local_checkpoint(checkpoint))
