"""Ray Data ingest: the sampler's chunks -> decoded, augmented uint8 rows in CPU tasks -> a worker's batches.

Each worker runs a pipeline over its own streams: one task fetches one row group, then decodes, augments and resizes the
images of its chunk, which is the whole row group except at the ends of a stream's share of an epoch. Blocks come back
in order (`preserve_order`), and a bounded number is prefetched. Augmentation is seeded with a row's data set, epoch and
number, so the pixels of step k are the same after a restart and for any number of workers. This module does not import
TensorFlow: reading tasks start in a second.

Shapes: H, W: height and width of the network's input; N: model.max_label_length.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import ray.data

from cluster.config import IngestConfig, RunSpec
from cluster.data.row_group_cache import RowGroupCache
from cluster.data.sampler import ChunkRead, Sampler, WorkerStep, share_reads
from cluster.data.shards import Manifest, read_manifest, read_row_group
from cluster.session import configure_data
from cluster.tasks import CaptureErrors, raise_failure
from textscanner.config import Config
from textscanner.data import schema
from textscanner.data.augmentation import augment
from textscanner.data.images import decode, fit, is_vertical
from textscanner.evaluation.metrics import SCORES

Rows = dict[str, np.ndarray]
"""Columns by name, each with one entry per row."""

# Chunks per Ray Data execution: bounds the driver-side bookkeeping of very long runs.
CHUNKS_PER_EXECUTION = 2048
# A row id is the data set's index above these bits and the row's number within the data set below them.
DATASET_SHIFT = 40
_POSITION = "position"  # column with a chunk's position in its execution


@dataclasses.dataclass(frozen=True)
class ChunkReader:
    """Reads a chunk and converts its rows to the network's input. Its only side effect is the node's cache.

    Attributes:
      uris: the data sets, by index.
      augment: for training.
    """

    config: Config
    uris: tuple[str, ...]
    augment: bool
    ingest: IngestConfig

    def read(self, chunk_read: ChunkRead) -> Rows:
        """Reads the rows of a chunk, in its order.

        Returns:
          `image` uint8 [B, H, W, 3], `quads` float32 [B, N, 4, 2] in pixels of `image`, `ids` int32 [B, N],
          `length` int32 [B] (0 for a row that cannot be used), `has_quads` and `case_known` float32 [B] (0 or 1),
          `row_id` int64 [B], and `text` [B] for evaluation.
        """
        table = read_row_group(self.uris[chunk_read.dataset], chunk_read.group, self._cache)
        offsets = chunk_read.rows()
        records = schema.from_table(table.take(offsets))
        numbers = (chunk_read.first_row + offsets).tolist()
        rows = [self._row(record, chunk_read, number) for record, number in zip(records, numbers, strict=True)]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    @property
    def _cache(self) -> RowGroupCache | None:
        folder = self.ingest.cache_dir
        return RowGroupCache(folder, round(self.ingest.cache_gib * 2**30)) if folder else None

    def _row(self, record: schema.WordRecord, chunk_read: ChunkRead, number: int) -> dict[str, Any]:
        """One row, without the axis B of `read`; `number` counts within the data set."""
        model = self.config.model
        row: dict[str, Any] = {
            "image": np.zeros((model.height_px, model.width_px, 3), np.uint8),
            "quads": np.zeros((model.max_label_length, 4, 2), np.float32),
            "ids": np.zeros(model.max_label_length, np.int32),
            "length": np.int32(0),
            "has_quads": np.float32(0),
            "case_known": np.float32(record.case_known),
            "row_id": np.int64((chunk_read.dataset << DATASET_SHIFT) + number),
            "text": record.text,
        }
        try:
            pixels = decode(record.image, record.source)
        except ValueError:
            return row  # length 0: counted in the metrics as unused
        if self.augment and _is_vertical_word(record, pixels):
            row["image"], _ = fit(pixels, model)  # black ones would distort the statistics of batch norm
            return row
        quads = record.quads
        if self.augment and self.config.data.augment:
            seed = (self.config.train.seed, chunk_read.dataset, chunk_read.epoch, number)
            strength = self.config.data.augment_strength
            rng = np.random.default_rng(seed)
            pixels, quads = augment(pixels, quads, model, rng=rng, strength=strength)
        row["image"], resize = fit(pixels, model)
        ids = self.config.charset.encode(record.text)
        if 0 < len(ids) <= model.max_label_length:
            row["ids"][: len(ids)] = ids
            row["length"] = np.int32(len(ids))
            # Characters that the charset skips have no position, so their quads go too.
            has_position = self.config.charset.has_position(record.text)
            if quads is not None and len(quads) == len(has_position):
                row["quads"][: len(ids)] = quads[has_position] * (resize.scale_x, resize.scale_y)
                row["has_quads"] = np.float32(1)
        return row


def _is_vertical_word(record: schema.WordRecord, pixels: np.ndarray) -> bool:
    """Whether an image [H, W, 3] is vertical and its characters, as far as known, do not stand side by side.

    Resized to the network's wide input, such a word cannot be read from left to right, and would only add noise.
    """
    if len(record.text) < 2 or not is_vertical(pixels):
        return False
    if record.quads is None:
        return True
    first, last = record.quads[[0, -1]].mean(1)
    return bool(last[0] - first[0] <= abs(last[1] - first[1]))


def stream_chunks(reader: ChunkReader, reads: Iterator[ChunkRead], cpus_per_task: float) -> Iterator[Rows]:
    """Yields the rows of each chunk in order; Ray Data tasks read ahead.

    Raises:
      UserError, StorageError: as `read_row_group`.
    """
    configure_data()
    while execution := list(itertools.islice(reads, CHUNKS_PER_EXECUTION)):
        # One chunk per block: one task each, one block out.
        items = [{"chunk_read": chunk_read, _POSITION: i} for i, chunk_read in enumerate(execution)]
        dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            CaptureErrors(_ReadBlock(reader)),
            batch_size=None,
            batch_format="numpy",
            num_cpus=cpus_per_task,
            zero_copy_batch=True,
        )
        expected = 0
        for block in dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1):
            raise_failure(block)
            for position, rows in _split_by_chunk(block):
                assert position == expected, f"Ray Data returned chunk {position}, expected {expected}"
                expected += 1
                yield rows
        assert expected == len(execution), f"Ray Data returned {expected} of {len(execution)} chunks"


@dataclasses.dataclass(frozen=True)
class _ReadBlock:
    reader: ChunkReader

    def __call__(self, block: dict[str, np.ndarray]) -> Rows:
        chunks = []
        for chunk_read, position in zip(block["chunk_read"], block[_POSITION], strict=True):
            rows = self.reader.read(chunk_read)
            chunks.append(rows | {_POSITION: np.full(len(rows["length"]), position)})
        return {name: np.concatenate([rows[name] for rows in chunks]) for name in chunks[0]}


def _split_by_chunk(block: Rows) -> Iterator[tuple[int, Rows]]:
    """Ray Data may return several chunks in one block; yields each one's position and rows."""
    positions = block[_POSITION]
    starts = np.flatnonzero(np.diff(positions, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(positions)], strict=True):
        yield int(positions[start]), {name: block[name][start:stop] for name in block if name != _POSITION}


def make_training_sampler(config: Config, content_hashes: Mapping[str, str] | None = None) -> Sampler:
    """The sampler over the training data of a config.

    Args:
      content_hashes: that the data sets must have, by URI; None accepts any.

    Raises:
      UserError: as `read_manifest` and `Sampler`.
    """
    hashes = content_hashes or {}
    return Sampler(
        [read_manifest(uri, hashes.get(uri)) for uri in config.data.train],
        weights=config.data.weights,
        seed=config.train.seed,
        num_streams=config.data.num_streams,
        global_batch_size=config.train.global_batch_size,
    )


def worker_batches(
    spec: RunSpec, sampler: Sampler, *, worker: int, num_workers: int, start_step: int, num_steps: int
) -> Iterator[Rows]:
    """Yields a worker's batches of `num_steps` steps, rows in the sampler's order; as `ChunkReader.read`, without text.

    Raises:
      UserError, StorageError: as `read_row_group`.
    """
    reader = ChunkReader(spec.config, spec.config.data.train, augment=True, ingest=spec.runtime.data)

    def steps() -> Iterator[WorkerStep]:
        all_steps = sampler.steps(worker=worker, num_workers=num_workers, start_step=start_step)
        return itertools.islice(all_steps, num_steps)

    # The order is traversed twice: ahead of time by the reading tasks, then to assemble batches from what they read.
    reads = (chunk_read for step in steps() for chunk_read in step.reads)
    chunks = stream_chunks(reader, reads, spec.runtime.data.cpus_per_read_task)
    unused: dict[tuple[int, int], collections.deque[tuple[Rows, int]]] = collections.defaultdict(collections.deque)
    for step in steps():
        for chunk_read in step.reads:
            rows = next(chunks)
            unused[chunk_read.stream, chunk_read.dataset].extend((rows, i) for i in range(len(rows["length"])))
        batch = [unused[slot].popleft() for slot in step.slots]
        yield {name: np.stack([rows[name][i] for rows, i in batch]) for name in batch[0][0] if name != "text"}


def evaluation_rows(
    spec: RunSpec, uris: Sequence[str], manifests: Sequence[Manifest], *, worker: int, num_workers: int
) -> Iterator[tuple[int, Rows]]:
    """Yields (data set, rows) of a worker's share of whole data sets: over all workers every row exactly once.

    Raises:
      UserError, StorageError: as `read_row_group`.
    """
    reads = share_reads(manifests, worker=worker, num_workers=num_workers)
    reader = ChunkReader(spec.config, tuple(uris), augment=False, ingest=spec.runtime.data)
    chunks = stream_chunks(reader, iter(reads), spec.runtime.data.cpus_per_read_task)
    for chunk_read, rows in zip(reads, chunks, strict=True):
        yield chunk_read.dataset, rows


def dataset_names(uris: Sequence[str]) -> list[str]:
    """A short unique name per data set: the last part of its URI, numbered if it is not unique."""
    names = [pathlib.PurePosixPath(uri).name or "set" for uri in uris]
    return [n if names.count(n) == 1 else f"{n}_{i}" for i, n in enumerate(names)]


def validation_metrics(uris: Sequence[str]) -> list[str]:
    """The names of the metrics that a validation on these data sets reports; none without a data set."""
    prefixes = ["val", *(f"val/{name}" for name in dataset_names(uris))] if uris else []
    return [f"{prefix}/{score}" for prefix in prefixes for score in SCORES]
