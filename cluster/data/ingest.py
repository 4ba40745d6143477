"""Ray Data ingest: the plan's items -> decoded, augmented uint8 rows in CPU tasks -> a worker's batches.

Each worker runs one pipeline over its own part of the plan: a task reads one chunk of one row group, decodes, augments
and fits it; blocks come back in order (`preserve_order`), a bounded number ahead. Augmentation is seeded with the row's
place in the plan, so the pixels of step k are the same after a restart and for any number of workers. This
module does not import TensorFlow: the reading tasks start in a second.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import ray

from cluster.config import IngestConfig, RunSpec
from cluster.data.row_group_cache import RowGroupCache
from cluster.data.sampler import CHUNK_ROWS, Item, Sampler, cut_chunks
from cluster.data.shards import Manifest, read_manifest, read_row_group
from cluster.session import configure_data
from cluster.tasks import CaptureErrors, raise_failure
from textscanner.config import Config
from textscanner.data import schema
from textscanner.data.augmentation import augment
from textscanner.data.images import decode, fit
from textscanner.evaluation.metrics import SCORES

Rows = dict[str, np.ndarray]

# Items per Ray Data execution: bounds the driver-side bookkeeping of very long runs.
ITEMS_PER_EXECUTION = 2048
# Row ids: the data set's index above, its row number below.
DATASET_SHIFT = 40


@dataclasses.dataclass(frozen=True)
class ChunkReader:
    """An item of the plan in, rows that the network takes out. Pure but for reading."""

    config: Config
    uris: tuple[str, ...]
    augment: bool
    ingest: IngestConfig

    def read(self, item: Item) -> Rows:
        """The item's rows, in its order. `text` rides along for evaluation."""
        chunk = item.chunk
        table = read_row_group(self.uris[item.dataset], chunk.group, self._cache)
        records = schema.from_table(table.slice(chunk.start, len(chunk)))
        order = item.rows() if self.augment else np.arange(len(chunk))
        rows = [self._row(records[i], item, chunk.first_row + int(i)) for i in order]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    @property
    def _cache(self) -> RowGroupCache | None:
        folder = self.ingest.cache_dir
        return RowGroupCache(folder, round(self.ingest.cache_gib * 2**30)) if folder else None

    def _row(self, record: schema.WordRecord, item: Item, number: int) -> dict[str, Any]:
        model = self.config.model
        row: dict[str, Any] = {
            "image": np.zeros((model.height_px, model.width_px, 3), np.uint8),
            "quads": np.zeros((model.max_label_length, 4, 2), np.float32),
            "ids": np.zeros(model.max_label_length, np.int32),
            "length": np.int32(0),
            "has_quads": np.float32(0),
            "row_id": np.int64((item.dataset << DATASET_SHIFT) + number),
            "text": record.text,
        }
        try:
            pixels = decode(record.image, record.source)
        except ValueError:
            return row  # length 0: counted as unused, trained on by nobody
        quads = record.quads
        if self.augment and self.config.data.augment:
            rng = np.random.default_rng((self.config.train.seed, item.dataset, item.epoch, number))
            pixels, quads = augment(pixels, quads, model, rng, self.config.data.augment_strength)
        row["image"], how = fit(pixels, model)
        ids = self.config.charset.encode(record.text)
        if 0 < len(ids) <= model.max_label_length:
            row["ids"][: len(ids)] = ids
            row["length"] = np.int32(len(ids))
            kept = self.config.charset.has_position(record.text)
            if quads is not None and len(quads) == len(kept):
                row["quads"][: len(ids)] = quads[kept] * (how.scale_x, how.scale_y)
                row["has_quads"] = np.float32(1)
        return row


def stream_items(reader: ChunkReader, items: Iterator[Item], cpus: float) -> Iterator[Rows]:
    """The rows of each item, in the order of the items, read ahead by Ray Data tasks of `cpus` CPUs each."""
    configure_data()
    while leg := list(itertools.islice(items, ITEMS_PER_EXECUTION)):
        # One item per block: one task each, one block out.
        rows = [{"item": item, "at": at} for at, item in enumerate(leg)]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            CaptureErrors(_ReadBlock(reader)),
            batch_size=None,
            batch_format="numpy",
            num_cpus=cpus,
            zero_copy_batch=True,
        )
        expected = 0
        for block in dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1):
            raise_failure(block)
            for at, part in _split_by_item(block):
                assert at == expected, f"Ray Data returned item {at}, expected {expected}"
                expected += 1
                yield part
        assert expected == len(leg), f"Ray Data returned {expected} of {len(leg)} items"


@dataclasses.dataclass(frozen=True)
class _ReadBlock:
    reader: ChunkReader

    def __call__(self, batch: dict[str, np.ndarray]) -> Rows:
        parts = []
        for item, at in zip(batch["item"], batch["at"], strict=True):
            rows = self.reader.read(item)
            parts.append(rows | {"at": np.full(len(rows["length"]), at)})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _split_by_item(block: Rows) -> Iterator[tuple[int, Rows]]:
    starts = np.flatnonzero(np.diff(block["at"], prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(block["at"])], strict=True):
        yield int(block["at"][start]), {k: v[start:stop] for k, v in block.items() if k != "at"}


def training_sampler(config: Config) -> Sampler:
    """The order of the config's training data."""
    manifests = [read_manifest(uri) for uri in config.data.train]
    return Sampler(
        manifests, config.data.weights, config.train.seed, config.data.num_streams, config.train.global_batch_size
    )


def worker_batches(
    spec: RunSpec, plan: Sampler, worker: int, num_workers: int, start_step: int, steps: int
) -> Iterator[Rows]:
    """A worker's batches, rows in the plan's order; `steps` of them."""
    reader = ChunkReader(spec.config, spec.config.data.train, augment=True, ingest=spec.runtime.data)

    def plans() -> Iterator[Any]:
        return itertools.islice(plan.steps(worker, num_workers, start_step), steps)

    fetched = stream_items(
        reader, (item for step in plans() for item in step.items), spec.runtime.data.cpus_per_read_task
    )
    queues: dict[tuple[int, int], collections.deque] = collections.defaultdict(collections.deque)
    for step in plans():
        for item in step.items:
            part = next(fetched)
            queues[item.stream, item.dataset].extend((part, i) for i in range(len(part["length"])))
        taken = [queues[slot].popleft() for slot in step.slots]
        yield {name: np.stack([part[name][i] for part, i in taken]) for name in taken[0][0] if name != "text"}


def evaluation_rows(
    spec: RunSpec, uris: Sequence[str], manifests: Sequence[Manifest], worker: int, num_workers: int
) -> Iterator[tuple[int, Rows]]:
    """This worker's share of whole data sets, every row exactly once over the workers: (data set, rows)."""
    items = [
        Item(0, d, 0, chunk, 0, ())
        for d, manifest in enumerate(manifests)
        for chunk in cut_chunks(manifest, CHUNK_ROWS // 4)
    ][worker::num_workers]
    reader = ChunkReader(spec.config, tuple(uris), augment=False, ingest=spec.runtime.data)
    for item, rows in zip(items, stream_items(reader, iter(items), spec.runtime.data.cpus_per_read_task), strict=True):
        yield item.dataset, rows


def dataset_names(uris: Sequence[str]) -> list[str]:
    """A short unique name per data set: the last part of its URI, numbered where it repeats."""
    names = [pathlib.PurePosixPath(uri).name or "set" for uri in uris]
    return [n if names.count(n) == 1 else f"{n}_{i}" for i, n in enumerate(names)]


def validation_metrics(uris: Sequence[str]) -> list[str]:
    """The names of what a validation on these data sets reports; none without a data set."""
    prefixes = ["val", *(f"val/{name}" for name in dataset_names(uris))] if uris else []
    return [f"{prefix}/{score}" for prefix in prefixes for score in SCORES]
