"""The order of the data: a pure function of (seed, manifests, weights, streams, global batch).

A global batch is made of `num_streams` virtual streams, each giving the same number of rows per step. Each data set's
row groups, cut into chunks, are shuffled anew for each epoch and dealt to the streams in turn, without end: every row
is used once per epoch. Within a stream, a seeded draw says which data set the next row comes from. A worker serves its
share of the streams, so the rows of step k do not depend on how many workers there are, and the plan can be entered at
any step by counting, without reading anything. What was given up: rows are shuffled within chunks and mixed over
streams, not over the whole set; write shards in random order (the renderer does).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from cluster.data.shards import Manifest, RowGroupRef

CHUNK_ROWS = 256
_DRAWS = 4096  # data-set draws per generator


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Rows `start:stop` of a row group; `first_row` is the data set's row number of row `start`."""

    group: RowGroupRef
    start: int
    stop: int
    first_row: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclasses.dataclass(frozen=True)
class Item:
    """One unit of reading: a chunk, in an order drawn from `shuffle_seed`, without its first `skip` rows."""

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
class StepItems:
    """What a worker does for one step: fetch `items`, then take one row per entry of `slots` (stream, data set)."""

    items: tuple[Item, ...]
    slots: tuple[tuple[int, int], ...]


def cut_chunks(manifest: Manifest, max_rows: int) -> tuple[Chunk, ...]:
    """The manifest's row groups, cut into pieces of at most `max_rows`, in storage order."""
    chunks, first = [], 0
    for shard in manifest.shards:
        for ref in shard.refs():
            rows = ref.group.num_rows
            for start in range(0, rows, max_rows):
                stop = min(start + max_rows, rows)
                chunks.append(Chunk(ref, start, stop, first + start))
            first += rows
    return tuple(chunks)


class Sampler:
    """The training order over one or more data sets.

    Args:
      manifests: one per data set.
      weights: how often each is drawn; empty for by rows.
      seed, num_streams, global_batch_size: as in the config; num_streams divides global_batch_size.

    Raises:
      ValueError: a data set is empty.
    """

    def __init__(
        self,
        manifests: Sequence[Manifest],
        weights: Sequence[float],
        seed: int,
        num_streams: int,
        global_batch_size: int,
    ) -> None:
        self._seed = seed
        self._num_streams = num_streams
        self.rows_per_stream = global_batch_size // num_streams
        sizes = [m.num_rows for m in manifests]
        if not sizes or min(sizes) == 0:
            raise ValueError(f"training data sets have {sizes} rows: give at least one, and none without rows")
        share = np.asarray(weights or sizes, np.float64)
        self._share = share / share.sum()
        # Small sets are cut finer, so that every stream gets its part of each epoch.
        self._chunks = [cut_chunks(m, min(CHUNK_ROWS, max(1, m.num_rows // (4 * num_streams)))) for m in manifests]

    def steps(self, worker: int, num_workers: int, start_step: int) -> Iterator[StepItems]:
        """The worker's steps from `start_step` (steps done before) on, without end."""
        streams = range(worker, self._num_streams, num_workers)
        cursors = {s: _Cursor(self, s, start_step * self.rows_per_stream) for s in streams}
        while True:
            items: list[Item] = []
            slots: list[tuple[int, int]] = []
            for stream, cursor in cursors.items():
                for _ in range(self.rows_per_stream):
                    dataset, item = cursor.advance()
                    items += [item] if item else []
                    slots.append((stream, dataset))
            yield StepItems(tuple(items), tuple(slots))

    def items_of(self, stream: int, dataset: int) -> Iterator[Item]:
        """The chunks that a stream reads of a data set, epoch after epoch, without end."""
        chunks = self._chunks[dataset]
        position = stream
        while True:
            epoch, at = divmod(position, len(chunks))
            chunk = int(self._order(dataset, epoch)[at])
            seed = (self._seed, dataset, epoch, chunk)
            yield Item(stream, dataset, epoch, chunks[chunk], 0, seed)
            position += self._num_streams

    def draws(self, stream: int, block: int) -> np.ndarray:
        """Which data set rows `block * _DRAWS ...` of a stream come from, int [_DRAWS]."""
        rng = np.random.default_rng((self._seed, 1, stream, block))
        return rng.choice(len(self._share), _DRAWS, p=self._share)

    def drawn_before(self, stream: int, row: int) -> np.ndarray:
        """How many of a stream's first `row` rows come from each data set, int [data sets]."""
        counts = np.zeros(len(self._share), np.int64)
        if len(self._share) == 1:
            return counts + row
        for block in range(-(-row // _DRAWS)):
            upto = min(row - block * _DRAWS, _DRAWS)
            counts += np.bincount(self.draws(stream, block)[:upto], minlength=len(counts))
        return counts

    @functools.lru_cache(maxsize=16)  # noqa: B019 (a plan lives as long as its process)
    def _order(self, dataset: int, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self._seed, 0, dataset, epoch))
        return rng.permutation(len(self._chunks[dataset]))


class _Cursor:
    """A stream's position: which data set is next, and how many rows of its open chunks are left."""

    def __init__(self, plan: Sampler, stream: int, row: int) -> None:
        self._plan, self._stream, self._row = plan, stream, row
        self._draws = plan.draws(stream, row // _DRAWS)
        before = plan.drawn_before(stream, row)
        self._items = [plan.items_of(stream, d) for d in range(len(before))]
        self._left = [0] * len(before)
        self._skip = [self._fast_forward(d, int(count)) for d, count in enumerate(before)]

    def _fast_forward(self, dataset: int, rows: int) -> int:
        """Passes over whole chunks that were used; returns how many rows of the next one were."""
        peeked = self._items[dataset]
        for item in peeked:
            if rows < len(item.chunk):
                self._items[dataset] = _prepend(item, peeked)
                return rows
            rows -= len(item.chunk)
        raise AssertionError("items_of has no end")

    def advance(self) -> tuple[int, Item | None]:
        """The data set of the next row, and the item to fetch first if its open chunk is used up."""
        if self._row % _DRAWS == 0:
            self._draws = self._plan.draws(self._stream, self._row // _DRAWS)
        dataset = int(self._draws[self._row % _DRAWS])
        self._row += 1
        item = None
        if self._left[dataset] == 0:
            item = dataclasses.replace(next(self._items[dataset]), skip=self._skip[dataset])
            self._left[dataset] = len(item.chunk) - item.skip
            self._skip[dataset] = 0
        self._left[dataset] -= 1
        return dataset, item


def _prepend(item: Item, items: Iterator[Item]) -> Iterator[Item]:
    yield item
    yield from items
