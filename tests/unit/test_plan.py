"""The order of the data: a pure function that no number of workers and no interruption changes."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest

from cluster.data.sampler import Sampler, cut_chunks
from cluster.data.shards import Manifest, RowGroup, ShardInfo


def manifest(*shards: tuple[int, ...]) -> Manifest:
    infos = tuple(
        ShardInfo(f"s{i}", sum(sizes), 0, str(i), tuple(RowGroup(size, 0, 0, "") for size in sizes), {}, 0, 0)
        for i, sizes in enumerate(shards)
    )
    return Manifest(1, infos, {}, {})


BIG = manifest((256, 256, 100), (256, 256), (77,))
SMALL = manifest((40,), (3,))


def rows_of_steps(plan, worker, num_workers, start, count):
    """Per step, the (stream, data set, row number) triples that a worker takes."""
    queues = collections.defaultdict(collections.deque)
    steps = []
    for step in itertools.islice(plan.steps(worker, num_workers, start), count):
        for item in step.items:
            queues[item.stream, item.dataset].extend(item.chunk.first_row + item.rows())
        steps.append([(*slot, int(queues[slot].popleft())) for slot in step.slots])
    return steps


def merged(plan, num_workers, start, count):
    """Per step, the global batch as a sorted list."""
    parts = [rows_of_steps(plan, w, num_workers, start, count) for w in range(num_workers)]
    return [sorted(itertools.chain.from_iterable(step)) for step in zip(*parts, strict=True)]


@pytest.mark.parametrize("weights", [(), (1.0, 3.0)])
def test_the_global_batch_does_not_depend_on_the_workers(weights):
    plan = Sampler([BIG, SMALL], weights, seed=3, num_streams=8, global_batch_size=32)
    alone = merged(plan, 1, 0, 60)
    for num_workers in (2, 4, 8):
        assert merged(plan, num_workers, 0, 60) == alone
    assert all(len(step) == 32 for step in alone)


@pytest.mark.parametrize("start", [1, 7, 33, 500])
def test_entering_at_any_step_goes_on_with_the_very_next_row(start):
    plan = Sampler([BIG, SMALL], (2.0, 1.0), seed=3, num_streams=4, global_batch_size=16)
    straight = rows_of_steps(plan, 1, 2, 0, start + 40)
    assert rows_of_steps(plan, 1, 2, start, 40) == straight[start:]


def test_every_row_is_used_once_per_epoch():
    plan = Sampler([BIG], (), seed=0, num_streams=4, global_batch_size=16)
    for stream in range(4):
        assert next(plan.items_of(stream, 0)).epoch == 0
    # All chunks of one epoch, from all streams, are the data set.
    seen: collections.Counter[int] = collections.Counter()
    for stream in range(4):
        for item in itertools.takewhile(lambda i: i.epoch < 3, plan.items_of(stream, 0)):
            seen.update((item.chunk.first_row + item.rows()).tolist())
    assert seen == {row: 3 for row in range(BIG.num_rows)}


def test_epochs_and_seeds_give_other_orders():
    def first_epochs(seed):
        plan = Sampler([BIG], (), seed, num_streams=2, global_batch_size=8)
        items = itertools.takewhile(lambda i: i.epoch < 2, plan.items_of(0, 0))
        return [(i.epoch, tuple(i.rows() + i.chunk.first_row)) for i in items]

    assert first_epochs(1) == first_epochs(1)
    assert first_epochs(1) != first_epochs(2)
    rows = first_epochs(1)
    assert [r for e, r in rows if e == 0] != [r for e, r in rows if e == 1]


def test_weights_decide_the_mix():
    plan = Sampler([BIG, SMALL], (3.0, 1.0), seed=0, num_streams=2, global_batch_size=8)
    steps = merged(plan, 1, 0, 2000)
    share = np.mean([dataset == 0 for step in steps for _, dataset, _ in step])
    assert share == pytest.approx(0.75, abs=0.01)


def test_chunks_cover_the_set():
    for max_rows in (1, 7, 256):
        chunks = cut_chunks(BIG, max_rows)
        rows = [row for c in chunks for row in range(c.first_row, c.first_row + len(c))]
        assert rows == list(range(BIG.num_rows))
        assert max(len(c) for c in chunks) <= max_rows


def test_an_empty_data_set_is_refused():
    with pytest.raises(ValueError, match="none without rows"):
        Sampler([BIG, dataclasses.replace(BIG, shards=())], (), 0, 4, 8)
