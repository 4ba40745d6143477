"""Scores a recognizer on whole data sets, in this process or in Ray tasks; the result is the same.

A source is a prepared data set (a URI with a manifest) or labelled images in a format that importers read; rows are
streamed. A broken image counts as misread: a recognizer that cannot open an image has not read it.
"""

from __future__ import annotations

import dataclasses
import functools
import heapq
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

import textscanner
from cluster.data.importers.registry import open_source
from cluster.data.importers.source import Source, batched
from cluster.data.shards import is_dataset, read_manifest, read_records, read_row_group
from cluster.evaluate.baselines import Recognizer, open_baseline
from cluster.progress_bar import progress_bar
from cluster.storage.checkpoints import fetch_checkpoint
from cluster.storage.location import absolute_uri
from textscanner.checkpoint_files import NO_VOCABULARY, shipped_weights
from textscanner.data import schema
from textscanner.data.annotations import Word, clean_text
from textscanner.data.images import decode
from textscanner.data.schema import WordRecord
from textscanner.errors import UserError
from textscanner.evaluation.error_analysis import ErrorAnalysis, ScoredWord
from textscanner.evaluation.metrics import SCORES, WordCounts
from textscanner.inference.lexicon import Lexicon
from textscanner.inference.onnx_reader import OnnxReader
from textscanner.inference.postprocess import READ_BATCH, Reading
from textscanner.text import normalize_for_scoring

MAX_MISTAKES = 60
EMPTY_READING = Reading("", 0.0, ())
MAX_NAME_CHARACTERS = 24  # of a recognizer and of a data set, in the progress bar


@dataclasses.dataclass(frozen=True)
class RecognizerSpec:
    """A recognizer to evaluate.

    Attributes:
      name: URI of a checkpoint or run, name of bundled weights, or name of a baseline.
      vocabulary: word prior (textscanner/inference/vocabulary.py); does not apply to baselines.
      is_baseline: whether `name` is a baseline (cluster/evaluate/baselines.py).
      lexicon: readings are replaced by its closest word; None for open vocabulary.
      use_onnx: reads with the exported network in the checkpoint's folder.
    """

    name: str
    _: dataclasses.KW_ONLY
    vocabulary: str = NO_VOCABULARY
    is_baseline: bool = False
    lexicon: Lexicon | None = None
    use_onnx: bool = False

    def open(self) -> Recognizer:
        """Loads the recognizer and reads one image, so that later readings are timed warm.

        Raises:
          UserError: the checkpoint cannot be read, or the baseline is not installed.
        """
        recognizer = self._load()
        recognizer.read([np.full((32, 128, 3), 127, np.uint8)])
        return recognizer

    def _load(self) -> Recognizer:
        if self.is_baseline:
            return open_baseline(self.name)
        folder = fetch_checkpoint(self.name)
        if self.use_onnx:
            return OnnxReader(pathlib.Path(folder), self.vocabulary)
        return textscanner.load(folder, self.vocabulary)


@dataclasses.dataclass(frozen=True, order=True)
class Mistake:
    """A misread word. Mistakes are ordered by the confidence of the reading."""

    confidence: float
    truth: str
    reading: str
    image: bytes = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True)
class DatasetScore:
    """Counts over a data set or a part of one; add the scores of parts.

    Attributes:
      num_broken: images that could not be decoded; they count as empty readings.
      seconds: time spent reading, summed over processes; without loading and decoding.
      mistakes: the MAX_MISTAKES most confident ones, most confident first.
    """

    error_analysis: ErrorAnalysis = dataclasses.field(default_factory=ErrorAnalysis)
    num_broken: int = 0
    seconds: float = 0.0
    mistakes: tuple[Mistake, ...] = ()

    def __add__(self, other: DatasetScore) -> DatasetScore:
        return DatasetScore(
            self.error_analysis + other.error_analysis,
            self.num_broken + other.num_broken,
            self.seconds + other.seconds,
            tuple(heapq.nlargest(MAX_MISTAKES, (*self.mistakes, *other.mistakes))),
        )

    @property
    def counts(self) -> WordCounts:
        """The scores: the field's standard protocol (case-insensitive, letters and digits only), and two with case."""
        return self.error_analysis.counts

    @property
    def words_per_second(self) -> float:
        """Throughput of one process."""
        return (self.counts.num_words + self.counts.num_skipped) / max(self.seconds, 1e-9)

    def as_dict(self) -> dict[str, Any]:
        """The JSON-compatible entry of a report file."""
        return {
            "num_words": int(self.counts.num_words),
            **{score: getattr(self.counts, score) for score in SCORES},
            "num_cased": int(self.counts.num_cased),
            "num_exact": int(self.counts.num_exact),
            "num_skipped": int(self.counts.num_skipped),
            "num_broken": self.num_broken,
            "words_per_second": self.words_per_second,
        } | self.error_analysis.as_dict()


def records_of(source: str, split: str | None = None) -> tuple[Iterator[WordRecord], int]:
    """Opens a source.

    Returns:
      its records, and the number of its rows.

    Raises:
      UserError: it is neither a data set nor labelled images of a known format, or it has no rows.
      StorageError: storage refuses or does not answer.
    """
    if is_dataset(source):
        return read_records(source), read_manifest(source).num_rows
    labelled_images = open_source(source, split=split)
    count = labelled_images.count()
    if not count:
        raise UserError(f"{source} has no labelled row" + (f" of split {split!r}" if split else ""))
    return _unchecked_records(labelled_images), count


def _unchecked_records(labelled_images: Source) -> Iterator[WordRecord]:
    """Yields every word: one without a usable image counts as misread, one without a text is skipped by the score."""
    for part in labelled_images.parts(READ_BATCH):
        for row in labelled_images.read(part):
            if isinstance(row, Word):
                case_known = row.case_known is not False
                yield WordRecord(row.image or b"", clean_text(row.text), None, row.source, case_known)


def score_records(
    recognizer: Recognizer, records: Iterable[WordRecord], lexicon: Lexicon | None = None
) -> DatasetScore:
    """Scores a recognizer on a stream of records, with READ_BATCH in memory at a time."""
    total = DatasetScore()
    for batch in batched(records, READ_BATCH):
        images = [_decode(record) for record in batch]
        decoded = [image for image in images if image is not None]
        start = time.perf_counter()
        decoded_readings = iter(recognizer.read(decoded))
        seconds = time.perf_counter() - start
        readings = [EMPTY_READING if image is None else next(decoded_readings) for image in images]
        if lexicon is not None:
            readings = [lexicon.nearest(reading) for reading in readings]
        total += _score_batch(batch, readings, len(images) - len(decoded), seconds)
    return total


def _score_batch(batch: Sequence[WordRecord], readings: list[Reading], num_broken: int, seconds: float) -> DatasetScore:
    words = [
        ScoredWord(record.text, r.text, r.confidence, record.case_known)
        for record, r in zip(batch, readings, strict=True)
    ]
    mistakes = (
        Mistake(r.confidence, record.text, r.text, record.image)
        for record, r in zip(batch, readings, strict=True)
        if normalize_for_scoring(record.text) not in ("", normalize_for_scoring(r.text))
    )
    return DatasetScore(
        ErrorAnalysis.from_words(words), num_broken, seconds, tuple(heapq.nlargest(MAX_MISTAKES, mistakes))
    )


def evaluate(
    recognizer: RecognizerSpec, source: str, *, split: str | None = None, num_workers: int = 0
) -> DatasetScore:
    """Scores a recognizer on a source, with a progress bar.

    Args:
      source: URI of a data set or of labelled images.
      split: only rows of this split, of formats with splits.
      num_workers: Ray tasks at a time, for a prepared data set; 0 reads in this process.

    Raises:
      UserError: the recognizer or the source cannot be read.
      StorageError: storage refuses or does not answer.
    """
    source = absolute_uri(source)
    if not recognizer.is_baseline and recognizer.name not in shipped_weights():
        recognizer = dataclasses.replace(recognizer, name=absolute_uri(recognizer.name))
    if num_workers:
        return _evaluate_on_ray(recognizer, source, num_workers)
    opened = _open_once(recognizer)
    records, count = records_of(source, split)
    description = f"{recognizer.name[-MAX_NAME_CHARACTERS:]} {source[-MAX_NAME_CHARACTERS:]}"
    with progress_bar(description, count, "image") as advance:
        return score_records(opened, _count_records(records, advance), recognizer.lexicon)


def _count_records(records: Iterable[WordRecord], advance: Callable[[int], None]) -> Iterator[WordRecord]:
    for record in records:
        yield record
        advance(1)


def _decode(record: WordRecord) -> np.ndarray | None:
    try:
        return decode(record.image, record.source)
    except ValueError:
        return None


def _evaluate_on_ray(recognizer: RecognizerSpec, source: str, num_workers: int) -> DatasetScore:
    from cluster.session import local_session
    from cluster.tasks import map_in_order

    manifest = read_manifest(source)
    row_groups = [{"ref": ref} for shard in manifest.shards for ref in shard.refs()]
    total = DatasetScore()
    description = source[-2 * MAX_NAME_CHARACTERS :]
    with local_session(), progress_bar(description, manifest.num_rows, "image") as advance:
        for row in map_in_order(functools.partial(_score_row_group, recognizer, source), row_groups, num_workers):
            total += row["score"]
            advance(row["num_rows"])
    return total


def _score_row_group(recognizer: RecognizerSpec, source: str, row: dict[str, Any]) -> dict[str, Any]:
    records = schema.from_table(read_row_group(source, row["ref"]))
    return {"score": score_records(_open_once(recognizer), records, recognizer.lexicon), "num_rows": len(records)}


@functools.lru_cache(maxsize=1)
def _open_once(recognizer: RecognizerSpec) -> Recognizer:
    """Loaded once per process for all data sets: Ray runs later tasks in the same worker processes."""
    return recognizer.open()
