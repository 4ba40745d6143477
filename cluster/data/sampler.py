"""The order of the training rows: a pure function of seed, manifests, weights, streams and global batch size.

A global batch is filled by `num_streams` virtual streams, each of which contributes the same number of rows per step.
In every epoch the row groups of a data set, cut into chunks, are shuffled and dealt to the streams in turn, so that
every row is used once per epoch. Within a stream, a seeded draw decides which data set the next row comes from.

A worker serves a share of the streams. So the rows of step k do not depend on the number of workers, and a run can
resume at any step by counting, without reading data. The trade-off: rows are shuffled within chunks and mixed over
streams, not over the whole data set. Write shards in random order, as the renderer does.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from cluster.data.shards import Manifest, RowGroupRef
from textscanner.errors import UserError

CHUNK_ROWS = 256
_DRAWS = 4096  # draws of a data set per random generator


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Rows `start:stop` of a row group; `first_row` is the number of row `start` within the data set."""

    group: RowGroupRef
    start: int
    stop: int
    first_row: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclasses.dataclass(frozen=True)
class ChunkRead:
    """One unit of reading: a chunk of a data set, for a stream, in an order of its own.

    Attributes:
      stream: index of the stream that takes the rows.
      dataset: index of the data set.
      epoch: number of complete passes over the data set before this one.
      skip: leading rows of the order that were used before the run resumed.
      shuffle_seed: seed of the order.
    """

    stream: int
    dataset: int
    epoch: int
    chunk: Chunk
    skip: int
    shuffle_seed: tuple[int, ...]

    def rows(self) -> np.ndarray:
        """Offsets into the chunk in the order of use, int64 [len(chunk) - skip]."""
        return np.random.default_rng(self.shuffle_seed).permutation(len(self.chunk))[self.skip :]


@dataclasses.dataclass(frozen=True)
class WorkerStep:
    """A worker's share of one step.

    Attributes:
      reads: chunks that this step needs first.
      slots: (stream, data set) of each row of the batch: the row is the next unused one that was read for them.
    """

    reads: tuple[ChunkRead, ...]
    slots: tuple[tuple[int, int], ...]


def cut_chunks(manifest: Manifest, max_rows: int) -> tuple[Chunk, ...]:
    """Cuts the row groups of a data set into chunks of at most `max_rows`, in storage order."""
    chunks, first_row = [], 0
    for shard in manifest.shards:
        for ref in shard.refs():
            num_rows = ref.group.num_rows
            for start in range(0, num_rows, max_rows):
                stop = min(start + max_rows, num_rows)
                chunks.append(Chunk(ref, start, stop, first_row + start))
            first_row += num_rows
    return tuple(chunks)


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
        self._seed = seed
        self._num_streams = num_streams
        self.rows_per_stream = global_batch_size // num_streams
        sizes = [m.num_rows for m in manifests]
        if not sizes or min(sizes) == 0:
            raise UserError(f"data.train names data sets of {sizes} rows: name at least one, and none that is empty")
        share = np.asarray(weights or sizes, np.float64)
        self._share = share / share.sum()
        # Chunks of small data sets are smaller, so that every stream gets some of each epoch.
        self._chunks = [cut_chunks(m, min(CHUNK_ROWS, max(1, m.num_rows // (4 * num_streams)))) for m in manifests]

    def steps(self, *, worker: int, num_workers: int, start_step: int) -> Iterator[WorkerStep]:
        """Yields a worker's steps without end; `start_step` is the number of steps done before."""
        streams = range(worker, self._num_streams, num_workers)
        cursors = {s: _StreamCursor(self, s, start_step * self.rows_per_stream) for s in streams}
        while True:
            reads: list[ChunkRead] = []
            slots: list[tuple[int, int]] = []
            for stream, cursor in cursors.items():
                for _ in range(self.rows_per_stream):
                    dataset, read = cursor.advance()
                    reads += [read] if read else []
                    slots.append((stream, dataset))
            yield WorkerStep(tuple(reads), tuple(slots))

    def chunk_reads(self, stream: int, dataset: int) -> Iterator[ChunkRead]:
        """Yields the chunks of a data set that a stream reads, epoch after epoch, without end."""
        chunks = self._chunks[dataset]
        position = stream
        while True:
            epoch, index = divmod(position, len(chunks))
            chunk = int(self._chunk_order(dataset, epoch)[index])
            seed = (self._seed, dataset, epoch, chunk)
            yield ChunkRead(stream, dataset, epoch, chunks[chunk], skip=0, shuffle_seed=seed)
            position += self._num_streams

    def draws(self, stream: int, block: int) -> np.ndarray:
        """The data sets of a stream's rows `block * _DRAWS ...`, int [_DRAWS]."""
        rng = np.random.default_rng((self._seed, 1, stream, block))
        return rng.choice(len(self._share), _DRAWS, p=self._share)

    def count_draws(self, stream: int, row: int) -> np.ndarray:
        """How many of a stream's first `row` rows come from each data set, int [data sets]."""
        counts = np.zeros(len(self._share), np.int64)
        if len(self._share) == 1:
            return counts + row
        for block in range(-(-row // _DRAWS)):
            num_draws = min(row - block * _DRAWS, _DRAWS)
            counts += np.bincount(self.draws(stream, block)[:num_draws], minlength=len(counts))
        return counts

    @functools.lru_cache(maxsize=16)  # noqa: B019 (a sampler lives as long as its process)
    def _chunk_order(self, dataset: int, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self._seed, 0, dataset, epoch))
        return rng.permutation(len(self._chunks[dataset]))


class _StreamCursor:
    """A position in a stream: the data set of the next row, and how many rows of each open chunk are unused."""

    def __init__(self, sampler: Sampler, stream: int, row: int) -> None:
        self._sampler, self._stream, self._row = sampler, stream, row
        self._draws = sampler.draws(stream, row // _DRAWS)
        counts = sampler.count_draws(stream, row)
        self._reads = [sampler.chunk_reads(stream, dataset) for dataset in range(len(counts))]
        self._num_unused = [0] * len(counts)
        self._skip = [self._fast_forward(dataset, int(count)) for dataset, count in enumerate(counts)]

    def _fast_forward(self, dataset: int, num_rows: int) -> int:
        """Passes over chunks that are used up; returns how many rows of the next one are used."""
        reads = self._reads[dataset]
        for read in reads:
            if num_rows < len(read.chunk):
                self._reads[dataset] = _prepend(read, reads)
                return num_rows
            num_rows -= len(read.chunk)
        raise AssertionError("chunk_reads has no end")

    def advance(self) -> tuple[int, ChunkRead | None]:
        """Returns the data set of the next row, and the chunk to read first if the open one is used up."""
        if self._row % _DRAWS == 0:
            self._draws = self._sampler.draws(self._stream, self._row // _DRAWS)
        dataset = int(self._draws[self._row % _DRAWS])
        self._row += 1
        read = None
        if self._num_unused[dataset] == 0:
            read = dataclasses.replace(next(self._reads[dataset]), skip=self._skip[dataset])
            self._num_unused[dataset] = len(read.chunk) - read.skip
            self._skip[dataset] = 0
        self._num_unused[dataset] -= 1
        return dataset, read


def _prepend(read: ChunkRead, reads: Iterator[ChunkRead]) -> Iterator[ChunkRead]:
    yield read
    yield from reads
