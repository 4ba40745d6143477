"""The order of the training rows: a pure function of seed, manifests, weights, streams and global batch size.

Step k uses positions k * B to (k + 1) * B of one endless sequence, B being the global batch size. `Mixture` decides
which data set each position takes its row from; position i belongs to stream i mod `num_streams`, and a worker serves a
share of the streams. So the rows of step k do not depend on the number of workers, and a run enters at any step by
counting, without reading data or replaying steps.

Epoch e of a data set of n rows is the span of positions that holds its uses e * n to (e + 1) * n. For it, the row
groups are shuffled, the rows of each too, and laid end to end: n rows. This sequence is cut into one piece per stream,
as long as the number of uses that the stream has in the span. These numbers add up to n, and each stream uses up its
piece, so in every epoch every row is used exactly once, whatever the sizes of shards, batches and streams. A cut may go
through a row group: two streams then read it, each its own rows.

Without weights, data sets are mixed by their numbers of rows, and their epochs end together. With weights, each has
epochs of its own length.

The trade-off: a batch mixes rows of `num_streams` row groups, shuffled within them, not over the whole data set. Write
shards in random order, as the renderer does.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from cluster.data.mixture import Mixture, interval_lengths
from cluster.data.shards import Manifest, RowGroupRef
from textscanner.errors import UserError


@dataclasses.dataclass(frozen=True)
class ChunkRead:
    """One unit of reading: rows of one row group, for a stream.

    Attributes:
      stream: index of the stream that takes the rows.
      dataset: index of the data set.
      epoch: number of complete passes over the data set before this one.
      first_row: number of the row group's first row within the data set.
      start, stop: the part of the row group's order that is read.
      shuffle_seed: seed of the order; empty for storage order.
    """

    stream: int
    dataset: int
    epoch: int
    group: RowGroupRef
    first_row: int
    start: int
    stop: int
    shuffle_seed: tuple[int, ...]

    def __len__(self) -> int:
        return self.stop - self.start

    def rows(self) -> np.ndarray:
        """Offsets into the row group in the order of use, int64 [stop - start]."""
        num_rows = self.group.group.num_rows
        order = np.random.default_rng(self.shuffle_seed).permutation(num_rows) if self.shuffle_seed else None
        return (np.arange(num_rows) if order is None else order)[self.start : self.stop]


@dataclasses.dataclass(frozen=True)
class WorkerStep:
    """A worker's share of one step.

    Attributes:
      reads: chunks that this step needs first.
      slots: (stream, data set) of each row of the batch: the row is the next unused one that was read for them.
    """

    reads: tuple[ChunkRead, ...]
    slots: tuple[tuple[int, int], ...]


class DatasetOrder:
    """The rows of a data set, laid end to end: in storage order, or in an order of its own for each epoch.

    Args:
      dataset: index of the data set.
      seed: of the orders; None for storage order.
    """

    def __init__(self, manifest: Manifest, dataset: int, seed: int | None) -> None:
        self._dataset, self._seed = dataset, seed
        self._groups = tuple(ref for shard in manifest.shards for ref in shard.refs())
        self._sizes = np.array([ref.group.num_rows for ref in self._groups], np.int64)
        self._first_rows = np.cumsum(self._sizes) - self._sizes
        self.num_rows = int(self._sizes.sum())
        # Reading ahead crosses into the next epoch, while batches are still assembled from this one.
        self._plan = functools.lru_cache(maxsize=2)(self._make_plan)

    def reads(self, epoch: int, start: int, stop: int, stream: int = 0) -> Iterator[ChunkRead]:
        """Yields the chunks that hold rows `start:stop` of an epoch."""
        order, ends = self._plan(epoch)
        place = int(np.searchsorted(ends, start, side="right"))
        while start < stop:
            index, end = int(order[place]), min(stop, int(ends[place]))
            begin = int(ends[place]) - int(self._sizes[index])
            if start < end:
                yield self._read(epoch, index, start - begin, end - begin, stream)
            start, place = end, place + 1

    def _read(self, epoch: int, index: int, start: int, stop: int, stream: int) -> ChunkRead:
        seed = () if self._seed is None else (self._seed, self._dataset, epoch, index + 1)
        first_row = int(self._first_rows[index])
        return ChunkRead(stream, self._dataset, epoch, self._groups[index], first_row, start, stop, seed)

    def _make_plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The row groups in the order of an epoch, and the number of rows up to the end of each; int64 [row groups]."""
        order = np.arange(len(self._groups))
        if self._seed is not None:
            order = np.random.default_rng((self._seed, self._dataset, epoch, 0)).permutation(order)
        return order, np.cumsum(self._sizes[order])


def share_reads(manifests: Sequence[Manifest], *, worker: int, num_workers: int) -> list[ChunkRead]:
    """A worker's share of whole data sets in storage order: equal numbers of rows, each row group read once or twice.

    Only a row group that the border between two workers goes through is read twice.
    """
    total = sum(manifest.num_rows for manifest in manifests)
    start, stop = (total * w // num_workers for w in (worker, worker + 1))
    reads: list[ChunkRead] = []
    for dataset, manifest in enumerate(manifests):
        order = DatasetOrder(manifest, dataset, seed=None)
        reads += order.reads(0, max(0, start), min(stop, order.num_rows))
        start, stop = start - order.num_rows, stop - order.num_rows
    return reads


class Sampler:
    """The training order over one or more data sets.

    Args:
      manifests: one per data set.
      weights: relative frequency of each data set; empty weighs data sets by their number of rows.
      seed, num_streams, global_batch_size: as in the config; num_streams divides global_batch_size.

    Raises:
      UserError: there is no data set, or one is empty.
    """

    def __init__(
        self,
        manifests: Sequence[Manifest],
        *,
        weights: Sequence[float] = (),
        seed: int,
        num_streams: int,
        global_batch_size: int,
    ) -> None:
        self._num_streams, self._global_batch_size = num_streams, global_batch_size
        sizes = [m.num_rows for m in manifests]
        if not sizes or min(sizes) == 0:
            raise UserError(f"data.train names data sets of {sizes} rows: name at least one, and none that is empty")
        self._orders = [DatasetOrder(m, i, seed) for i, m in enumerate(manifests)]
        offset = int(np.random.default_rng((seed, 1)).integers(1 << 62))
        self._mixture = Mixture(interval_lengths(weights) if weights else sizes, offset)
        self._uses_before = functools.lru_cache(maxsize=64)(self._count_uses)

    def steps(self, *, worker: int, num_workers: int, start_step: int) -> Iterator[WorkerStep]:
        """Yields a worker's steps without end; `start_step` is the number of steps done before."""
        streams = range(worker, self._num_streams, num_workers)
        slots_of_worker = itertools.product(streams, range(len(self._orders)))
        all_reads = {slot: self.chunk_reads(*slot, start_step) for slot in slots_of_worker}
        num_unused = dict.fromkeys(all_reads, 0)
        for step in itertools.count(start_step):
            reads: list[ChunkRead] = []
            slots = tuple(self._slots(step, streams))
            for slot in slots:
                if not num_unused[slot]:
                    reads.append(next(all_reads[slot]))
                    num_unused[slot] = len(reads[-1])
                num_unused[slot] -= 1
            yield WorkerStep(tuple(reads), slots)

    def _slots(self, step: int, streams: range) -> Iterator[tuple[int, int]]:
        """Yields stream and data set of each row that the streams contribute to a step."""
        start, stop = step * self._global_batch_size, (step + 1) * self._global_batch_size
        for stream in streams:
            datasets = self._mixture.datasets(range(start + stream, stop, self._num_streams))
            yield from ((stream, int(dataset)) for dataset in datasets)

    def chunk_reads(self, stream: int, dataset: int, start_step: int = 0) -> Iterator[ChunkRead]:
        """Yields the chunks of a data set that a stream reads from a step on, epoch after epoch, without end."""
        order, position = self._orders[dataset], start_step * self._global_batch_size
        num_used = self._mixture.count(dataset, range(stream, position, self._num_streams))
        first_epoch = self._mixture.count(dataset, range(position)) // order.num_rows
        for epoch in itertools.count(first_epoch):
            before, after = self._uses_before(dataset, epoch), self._uses_before(dataset, epoch + 1)
            stop = sum(after[: stream + 1]) - sum(before[: stream + 1])  # end of the stream's piece
            num_left = after[stream] - max(num_used, before[stream])
            yield from order.reads(epoch, stop - num_left, stop, stream)

    def _count_uses(self, dataset: int, epoch: int) -> list[int]:
        """How many rows of a data set each stream uses before an epoch of it."""
        end = self._mixture.position_of(dataset, epoch * self._orders[dataset].num_rows)
        progressions = (range(stream, end, self._num_streams) for stream in range(self._num_streams))
        return [self._mixture.count(dataset, positions) for positions in progressions]
