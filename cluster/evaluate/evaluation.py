"""Scoring a reader on whole data sets, in this process or over Ray tasks; the counts are the same.

A source is a prepared data set (a URI with a manifest) or labelled images in any format that `jobs.prepare` knows. Rows
are streamed. Broken images count as read wrong: a recogniser that cannot open an image has not read it.
"""

from __future__ import annotations

import dataclasses
import functools
import heapq
import pathlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tqdm

import textscanner
from cluster.data.importers.registry import open_source
from cluster.data.importers.source import Source, batched
from cluster.data.shards import is_dataset, read_manifest, read_records, read_row_group
from cluster.evaluate.baselines import Recognizer, open_baseline
from cluster.storage.checkpoints import fetch_checkpoint
from cluster.storage.location import absolute_uri
from textscanner.checkpoint_files import NO_VOCABULARY, shipped_weights
from textscanner.data import schema
from textscanner.data.annotations import Word, clean_text
from textscanner.data.images import decode
from textscanner.data.schema import WordRecord
from textscanner.evaluation.error_analysis import ErrorAnalysis
from textscanner.evaluation.metrics import WordCounts
from textscanner.inference.lexicon import Lexicon
from textscanner.inference.onnx_reader import OnnxReader
from textscanner.inference.postprocess import READ_BATCH, Reading
from textscanner.text import normalize_for_scoring

MISTAKES_KEPT = 60
NOTHING_READ = Reading("", 0.0, ())


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is evaluated.

    Attributes:
      name: a checkpoint (URI, or a name that the package brings), or a baseline's name.
      vocabulary: which words are likely (textscanner/inference/vocabulary.py); baselines have their own.
      baseline: whether it is a baseline.
      onnx: read with the exported network that lies in the checkpoint's folder.
      lexicon: what readings are held to; None for nothing.
    """

    name: str
    vocabulary: str = NO_VOCABULARY
    baseline: bool = False
    lexicon: Lexicon | None = None
    onnx: bool = False

    def open(self) -> Recognizer:
        """Loads it and reads once, so that what comes is timed warm.

        Raises:
          ValueError: it cannot be read, or is not installed.
        """
        recognizer = self._load()
        recognizer.read([np.full((32, 128, 3), 127, np.uint8)])
        return recognizer

    def _load(self) -> Recognizer:
        if self.baseline:
            return open_baseline(self.name)
        folder = fetch_checkpoint(self.name)
        if self.onnx:
            return OnnxReader(pathlib.Path(folder), self.vocabulary)
        return textscanner.load(folder, self.vocabulary)


@dataclasses.dataclass(frozen=True, order=True)
class Mistake:
    """A word read wrong; they are ordered by the confidence with which."""

    confidence: float
    truth: str
    reading: str
    image: bytes = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True)
class Score:
    """A data set's counts.

    Attributes:
      num_broken: images that could not be decoded; they are scored as empty readings.
      seconds: spent reading, over all processes, loading and decoding left out.
      mistakes: the most confident ones, the worst first.
    """

    error_analysis: ErrorAnalysis = dataclasses.field(default_factory=ErrorAnalysis)
    num_broken: int = 0
    seconds: float = 0.0
    mistakes: tuple[Mistake, ...] = ()

    def __add__(self, other: Score) -> Score:
        return Score(
            self.error_analysis + other.error_analysis,
            self.num_broken + other.num_broken,
            self.seconds + other.seconds,
            tuple(heapq.nlargest(MISTAKES_KEPT, (*self.mistakes, *other.mistakes))),
        )

    @property
    def counts(self) -> WordCounts:
        """The field's standard score."""
        return self.error_analysis.counts

    @property
    def words_per_second(self) -> float:
        """How fast one process read."""
        return (self.counts.num_words + self.counts.num_skipped) / max(self.seconds, 1e-9)

    def as_dict(self) -> dict[str, Any]:
        """What evaluation files hold."""
        return {
            "num_words": int(self.counts.num_words),
            "word_accuracy": self.counts.word_accuracy,
            "one_minus_ned": self.counts.one_minus_ned,
            "char_accuracy": self.counts.char_accuracy,
            "length_accuracy": self.counts.length_accuracy,
            "num_skipped": int(self.counts.num_skipped),
            "num_broken": self.num_broken,
            "words_per_second": self.words_per_second,
        } | self.error_analysis.as_dict()


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


def score_records(recognizer: Recognizer, records: Iterable[WordRecord], lexicon: Lexicon | None = None) -> Score:
    """The score of one batch or stream of records, READ_BATCH in memory at a time."""
    total = Score()
    for batch in batched(records, READ_BATCH):
        images = [_image(record) for record in batch]
        known = [image for image in images if image is not None]
        start = time.perf_counter()
        read = iter(recognizer.read(known))
        seconds = time.perf_counter() - start
        readings = [NOTHING_READ if image is None else next(read) for image in images]
        if lexicon is not None:
            readings = [lexicon.nearest(reading) for reading in readings]
        total += _score(batch, readings, len(images) - len(known), seconds)
    return total


def _score(batch: Sequence[WordRecord], readings: list[Reading], num_broken: int, seconds: float) -> Score:
    rows = [(record.text, r.text, r.confidence) for record, r in zip(batch, readings, strict=True)]
    wrong = (
        Mistake(r.confidence, record.text, r.text, record.image)
        for record, r in zip(batch, readings, strict=True)
        if normalize_for_scoring(record.text) not in ("", normalize_for_scoring(r.text))
    )
    return Score(ErrorAnalysis.of(rows), num_broken, seconds, tuple(heapq.nlargest(MISTAKES_KEPT, wrong)))


def evaluate(subject: Subject, source: str, split: str | None = None, num_workers: int = 0) -> Score:
    """Scores a subject on a source; a prepared set with `num_workers` over so many Ray tasks at a time.

    Raises:
      ValueError: the subject or the source cannot be read.
    """
    source = absolute_uri(source)
    if not subject.baseline and subject.name not in shipped_weights():
        subject = dataclasses.replace(subject, name=absolute_uri(subject.name))
    if num_workers:
        return _evaluate_on_ray(subject, source, num_workers)
    recognizer = _opened(subject)
    records, count = records_of(source, split)
    with tqdm.tqdm(total=count, unit="image", desc=f"{subject.name[-24:]} {source[-24:]}") as bar:
        return score_records(recognizer, _told(records, bar), subject.lexicon)


def _told(records: Iterable[WordRecord], bar: tqdm.tqdm) -> Iterator[WordRecord]:
    for record in records:
        yield record
        bar.update(1)


def _image(record: WordRecord) -> np.ndarray | None:
    try:
        return decode(record.image, record.source)
    except ValueError:
        return None


def _evaluate_on_ray(subject: Subject, source: str, num_workers: int) -> Score:
    from cluster.session import local_session
    from cluster.tasks import map_in_order

    manifest = read_manifest(source)
    groups = [{"ref": ref} for shard in manifest.shards for ref in shard.refs()]
    total = Score()
    with local_session(), tqdm.tqdm(total=manifest.num_rows, unit="image", desc=source[-40:]) as bar:
        for row in map_in_order(functools.partial(_score_group, subject, source), groups, num_workers):
            total += row["score"]
            bar.update(row["rows"])
    return total


def _score_group(subject: Subject, source: str, row: dict[str, Any]) -> dict[str, Any]:
    records = schema.from_table(read_row_group(source, row["ref"]))
    return {"score": score_records(_opened(subject), records, subject.lexicon), "rows": len(records)}


@functools.lru_cache(maxsize=1)
def _opened(subject: Subject) -> Recognizer:
    """Loaded once per process and run of data sets: Ray runs later tasks in the same workers."""
    return subject.open()
