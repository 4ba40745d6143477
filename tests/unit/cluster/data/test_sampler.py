"""The order of the training rows: every row once per epoch, whatever the shards, the workers and the restarts."""

import collections
import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.data.sampler import Sampler, share_reads
from cluster.data.shards import ROW_GROUP_ROWS, Manifest, RowGroup, ShardInfo
from textscanner.errors import UserError


def manifest(*shards: tuple[int, ...]) -> Manifest:
    infos = tuple(
        ShardInfo(f"s{i}", sum(sizes), 0, str(i), tuple(RowGroup(size, 0, 0, "") for size in sizes), {}, 0, 0)
        for i, sizes in enumerate(shards)
    )
    return Manifest(1, infos, {}, {})


def row_groups(num_rows: int) -> tuple[int, ...]:
    """Sizes of the row groups of a shard, as the writer cuts them."""
    full, rest = divmod(num_rows, ROW_GROUP_ROWS)
    return (ROW_GROUP_ROWS,) * full + ((rest,) if rest else ())


PROPERTY = settings(max_examples=30, deadline=None, derandomize=True, database=None)
BIG = manifest((256, 256, 100), (256, 256), (77,))
SMALL = manifest((40,), (3,))
UNEVEN = manifest(*(row_groups(num_rows) for num_rows in (700, 300, 1000, 48)))

SHARDS = st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple)
DATASETS = st.lists(SHARDS, min_size=1, max_size=5).map(lambda shards: manifest(*shards))


@st.composite
def samplers(draw, weighted):
    """A sampler over a few random data sets, their manifests, and the global batch size."""
    manifests = draw(st.lists(DATASETS, min_size=1, max_size=3))
    num_streams = draw(st.integers(1, 6))
    weights = draw(st.lists(st.floats(0.02, 10), min_size=len(manifests), max_size=len(manifests))) if weighted else ()
    batch = num_streams * draw(st.integers(1, 4))
    seed = draw(st.integers(0, 99))
    sampler = Sampler(manifests, weights=weights, seed=seed, num_streams=num_streams, global_batch_size=batch)
    return sampler, manifests, batch


def rows_of_steps(sampler, worker, num_workers, start_step, count):
    """Per step, the (stream, data set, epoch, row number) of each row of a worker's batch."""
    queues = collections.defaultdict(collections.deque)
    steps = []
    all_steps = sampler.steps(worker=worker, num_workers=num_workers, start_step=start_step)
    for step in itertools.islice(all_steps, count):
        for read in step.reads:
            rows = (read.first_row + read.rows()).tolist()
            queues[read.stream, read.dataset].extend((read.epoch, row) for row in rows)
        steps.append([(*slot, *queues[slot].popleft()) for slot in step.slots])
    return steps


def global_batches(sampler, num_workers, start_step, count):
    """Per step, the global batch as a sorted list."""
    parts = [rows_of_steps(sampler, w, num_workers, start_step, count) for w in range(num_workers)]
    return [sorted(itertools.chain.from_iterable(step)) for step in zip(*parts, strict=True)]


def uses_of(batches):
    """How often each (data set, row number) is used."""
    return collections.Counter((dataset, row) for batch in batches for _, dataset, _, row in batch)


def all_rows(manifests, times):
    return {(d, row): times for d, m in enumerate(manifests) for row in range(m.num_rows)}


@pytest.mark.parametrize("num_streams", [1, 4, 8])
def test_one_epoch_of_steps_uses_every_row_of_uneven_shards_once(num_streams):
    sampler = Sampler([UNEVEN], seed=0, num_streams=num_streams, global_batch_size=16)
    assert uses_of(global_batches(sampler, 1, 0, 2048 // 16)) == all_rows([UNEVEN], 1)


@PROPERTY
@given(samplers(weighted=False))
def test_e_epochs_of_steps_use_every_row_of_all_data_sets_e_times(sample):
    sampler, manifests, batch = sample
    num_rows = sum(m.num_rows for m in manifests)
    epochs = batch // math.gcd(batch, num_rows)  # whole epochs that fill whole steps
    batches = global_batches(sampler, 1, 0, epochs * num_rows // batch)
    assert uses_of(batches) == all_rows(manifests, epochs)
    assert_no_repetition_within_an_epoch(batches)


@PROPERTY
@given(samplers(weighted=True), st.integers(1, 150))
def test_with_weights_every_data_set_has_exact_epochs_of_its_own(sample, num_steps):
    sampler, manifests, _ = sample
    batches = global_batches(sampler, 1, 0, num_steps)
    assert_no_repetition_within_an_epoch(batches)
    rows = collections.defaultdict(set)
    for _, dataset, epoch, row in itertools.chain.from_iterable(batches):
        rows[dataset, epoch].add(row)
    for dataset, m in enumerate(manifests):
        used = [rows[dataset, epoch] for epoch in range(sum(d == dataset for d, _ in rows))]
        assert all(epoch == set(range(m.num_rows)) for epoch in used[:-1])  # complete before the next one begins


def assert_no_repetition_within_an_epoch(batches):
    uses = collections.Counter(use[1:] for batch in batches for use in batch)
    assert not uses or max(uses.values()) == 1


@PROPERTY
@given(st.booleans().flatmap(lambda weighted: samplers(weighted=weighted)), st.data())
def test_kills_and_other_numbers_of_workers_change_nothing(sample, data):
    """A run that is killed again and again, and resumed from its last checkpoint by another number of workers."""
    sampler, _, batch = sample
    num_streams = sampler._num_streams
    num_steps, checkpoint_every = 40, data.draw(st.integers(1, 9))
    expected = global_batches(sampler, 1, 0, num_steps)
    used, step = {}, 0
    while step < num_steps:
        num_workers = data.draw(st.sampled_from([n for n in range(1, num_streams + 1) if num_streams % n == 0]))
        killed_at = min(num_steps, step + data.draw(st.integers(checkpoint_every, 25)))
        batches = global_batches(sampler, num_workers, step, killed_at - step)
        used |= dict(zip(range(step, killed_at), batches, strict=True))
        step = num_steps if killed_at == num_steps else killed_at // checkpoint_every * checkpoint_every
    assert [used[step] for step in range(num_steps)] == expected
    assert all(len(step) == batch for step in expected)


@pytest.mark.parametrize("weights", [(), (2.0, 1.0)])
@pytest.mark.parametrize("start", [1, 7, 33, 500])
def test_resuming_at_any_step_continues_with_the_next_row(start, weights):
    sampler = Sampler([BIG, SMALL], weights=weights, seed=3, num_streams=4, global_batch_size=16)
    straight = rows_of_steps(sampler, 1, 2, 0, start + 40)
    assert rows_of_steps(sampler, 1, 2, start, 40) == straight[start:]


@pytest.mark.parametrize("weights", [(), (2.0, 1.0)])
def test_a_late_step_is_entered_without_replaying_the_ones_before(weights):
    sampler = Sampler([BIG, SMALL], weights=weights, seed=3, num_streams=4, global_batch_size=16)
    (batch,) = global_batches(sampler, 1, 10**12, 1)
    shares = np.array(weights or (BIG.num_rows, SMALL.num_rows))
    for dataset, share in enumerate(shares / shares.sum()):
        num_rows = (BIG, SMALL)[dataset].num_rows
        epochs = {epoch for _, d, epoch, _ in batch if d == dataset}
        assert all(epoch == pytest.approx(share * 16e12 / num_rows, rel=1e-6) for epoch in epochs)


def test_every_epoch_and_seed_has_its_own_order():
    def first_epochs(seed):
        sampler = Sampler([BIG], seed=seed, num_streams=2, global_batch_size=8)
        reads = itertools.takewhile(lambda r: r.epoch < 2, sampler.chunk_reads(0, 0))
        return [(read.epoch, tuple(read.rows() + read.first_row)) for read in reads]

    assert first_epochs(1) == first_epochs(1)
    assert first_epochs(1) != first_epochs(2)
    rows = first_epochs(1)
    assert [r for e, r in rows if e == 0] != [r for e, r in rows if e == 1]


def test_weights_decide_the_mix_of_every_batch():
    sampler = Sampler([BIG, SMALL], weights=(3.0, 1.0), seed=0, num_streams=2, global_batch_size=8)
    steps = global_batches(sampler, 1, 0, 2000)
    shares = [np.mean([dataset == 0 for _, dataset, _, _ in step]) for step in steps]
    assert np.mean(shares) == pytest.approx(0.75, abs=0.001)
    assert min(shares) >= 0.5 and max(shares) <= 1


@pytest.mark.parametrize("num_streams", [1, 4, 8])
def test_a_row_group_is_read_once_per_epoch_except_where_streams_meet(num_streams):
    sampler = Sampler([UNEVEN], seed=0, num_streams=num_streams, global_batch_size=8)
    num_groups = sum(len(shard.row_groups) for shard in UNEVEN.shards)
    for epoch in range(3):
        reads = [
            read
            for stream in range(num_streams)
            for read in itertools.takewhile(lambda r: r.epoch <= epoch, sampler.chunk_reads(stream, 0))  # noqa: B023
            if read.epoch == epoch
        ]
        assert num_groups <= len(reads) <= num_groups + num_streams - 1


def test_a_batch_has_rows_of_many_row_groups_and_no_neighbours():
    large = manifest(*[row_groups(1024)] * 64)
    sampler = Sampler([large], seed=0, num_streams=8, global_batch_size=32)
    (batch,) = global_batches(sampler, 1, 50, 1)
    numbers = sorted(row for _, _, _, row in batch)
    assert len({row // ROW_GROUP_ROWS for row in numbers}) == 8
    assert np.mean(np.diff(numbers) == 1) < 0.2


@PROPERTY
@given(st.lists(DATASETS, min_size=1, max_size=3), st.integers(1, 5))
def test_evaluation_reads_every_row_once_and_row_groups_where_workers_meet_twice(manifests, num_workers):
    shares = [share_reads(manifests, worker=w, num_workers=num_workers) for w in range(num_workers)]
    reads = list(itertools.chain.from_iterable(shares))
    rows = [(read.dataset, row) for read in reads for row in (read.first_row + read.rows()).tolist()]
    assert rows == list(all_rows(manifests, 1))
    sizes = [sum(map(len, share)) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert len(reads) <= sum(len(shard.row_groups) for m in manifests for shard in m.shards) + num_workers - 1


def test_an_empty_data_set_is_refused():
    with pytest.raises(UserError, match="none that is empty"):
        Sampler([BIG, dataclasses.replace(BIG, shards=())], seed=0, num_streams=4, global_batch_size=8)
