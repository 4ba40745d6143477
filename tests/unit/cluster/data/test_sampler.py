"""The order of the training rows: a pure function that neither the number of workers nor a restart changes."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest

from cluster.data.sampler import Sampler, cut_chunks
from cluster.data.shards import Manifest, RowGroup, ShardInfo
from textscanner.errors import UserError


def manifest(*shards: tuple[int, ...]) -> Manifest:
    infos = tuple(
        ShardInfo(f"s{i}", sum(sizes), 0, str(i), tuple(RowGroup(size, 0, 0, "") for size in sizes), {}, 0, 0)
        for i, sizes in enumerate(shards)
    )
    return Manifest(1, infos, {}, {})


BIG = manifest((256, 256, 100), (256, 256), (77,))
SMALL = manifest((40,), (3,))


def rows_of_steps(sampler, worker, num_workers, start_step, count):
    """Per step, the (stream, data set, row number) triples of a worker's batch."""
    queues = collections.defaultdict(collections.deque)
    steps = []
    all_steps = sampler.steps(worker=worker, num_workers=num_workers, start_step=start_step)
    for step in itertools.islice(all_steps, count):
        for read in step.reads:
            queues[read.stream, read.dataset].extend(read.chunk.first_row + read.rows())
        steps.append([(*slot, int(queues[slot].popleft())) for slot in step.slots])
    return steps


def global_batches(sampler, num_workers, start_step, count):
    """Per step, the global batch as a sorted list."""
    parts = [rows_of_steps(sampler, w, num_workers, start_step, count) for w in range(num_workers)]
    return [sorted(itertools.chain.from_iterable(step)) for step in zip(*parts, strict=True)]


@pytest.mark.parametrize("weights", [(), (1.0, 3.0)])
def test_the_global_batch_does_not_depend_on_the_workers(weights):
    sampler = Sampler([BIG, SMALL], weights=weights, seed=3, num_streams=8, global_batch_size=32)
    alone = global_batches(sampler, 1, 0, 60)
    for num_workers in (2, 4, 8):
        assert global_batches(sampler, num_workers, 0, 60) == alone
    assert all(len(step) == 32 for step in alone)


@pytest.mark.parametrize("start", [1, 7, 33, 500])
def test_resuming_at_any_step_continues_with_the_next_row(start):
    sampler = Sampler([BIG, SMALL], weights=(2.0, 1.0), seed=3, num_streams=4, global_batch_size=16)
    straight = rows_of_steps(sampler, 1, 2, 0, start + 40)
    assert rows_of_steps(sampler, 1, 2, start, 40) == straight[start:]


def test_every_row_is_used_once_per_epoch():
    sampler = Sampler([BIG], seed=0, num_streams=4, global_batch_size=16)
    for stream in range(4):
        assert next(sampler.chunk_reads(stream, 0)).epoch == 0
    # All chunks of one epoch, from all streams, are the data set.
    uses: collections.Counter[int] = collections.Counter()
    for stream in range(4):
        for read in itertools.takewhile(lambda r: r.epoch < 3, sampler.chunk_reads(stream, 0)):
            uses.update((read.chunk.first_row + read.rows()).tolist())
    assert uses == {row: 3 for row in range(BIG.num_rows)}


def test_every_epoch_and_seed_has_its_own_order():
    def first_epochs(seed):
        sampler = Sampler([BIG], seed=seed, num_streams=2, global_batch_size=8)
        reads = itertools.takewhile(lambda r: r.epoch < 2, sampler.chunk_reads(0, 0))
        return [(read.epoch, tuple(read.rows() + read.chunk.first_row)) for read in reads]

    assert first_epochs(1) == first_epochs(1)
    assert first_epochs(1) != first_epochs(2)
    rows = first_epochs(1)
    assert [r for e, r in rows if e == 0] != [r for e, r in rows if e == 1]


def test_weights_decide_the_mix():
    sampler = Sampler([BIG, SMALL], weights=(3.0, 1.0), seed=0, num_streams=2, global_batch_size=8)
    steps = global_batches(sampler, 1, 0, 2000)
    share = np.mean([dataset == 0 for step in steps for _, dataset, _ in step])
    assert share == pytest.approx(0.75, abs=0.01)


def test_chunks_cover_the_data_set_once():
    for max_rows in (1, 7, 256):
        chunks = cut_chunks(BIG, max_rows)
        rows = [row for c in chunks for row in range(c.first_row, c.first_row + len(c))]
        assert rows == list(range(BIG.num_rows))
        assert max(len(c) for c in chunks) <= max_rows


def test_an_empty_data_set_is_refused():
    with pytest.raises(UserError, match="none that is empty"):
        Sampler([BIG, dataclasses.replace(BIG, shards=())], seed=0, num_streams=4, global_batch_size=8)
