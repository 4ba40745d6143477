"""The node cache of row groups: content is verified, the size limit holds, and no failure reaches the reader."""

import contextlib
import errno
import hashlib
import multiprocessing
import os
import pathlib
import stat
import time

import numpy as np
import pytest

from cluster.data import row_group_cache
from cluster.data.row_group_cache import TOTAL_NAME, RowGroupCache

SIZE = 1000


def block(number: int, size: int = SIZE) -> tuple[str, bytes]:
    data = np.random.default_rng(number).bytes(size)
    return hashlib.sha256(data).hexdigest(), data


def files_of(cache: RowGroupCache) -> list[pathlib.Path]:
    return [path for path in pathlib.Path(cache.folder).glob("*/*") if path.is_file()]


def stored_bytes(cache: RowGroupCache) -> int:
    total = 0
    for path in pathlib.Path(cache.folder).glob("*/*"):
        with contextlib.suppress(FileNotFoundError):  # another process removed it in the meantime
            total += path.stat().st_size
    return total


@pytest.fixture
def cache(tmp_path) -> RowGroupCache:
    return RowGroupCache(str(tmp_path / "cache"), 10 * SIZE)


def test_stored_content_is_returned_and_unknown_content_is_a_miss(cache):
    sha256, data = block(1)
    assert cache.get(sha256) is None
    cache.put(sha256, data)
    assert cache.get(sha256) == data
    assert cache.get(block(2)[0]) is None


def test_files_are_named_by_their_hash_and_private(cache):
    sha256, data = block(1)
    cache.put(sha256, data)
    (path,) = files_of(cache)
    assert (path.name, path.parent.name) == (sha256, sha256[:2])
    for folder in (path.parent, path.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_in_a_folder_of_all_users_a_planted_link_is_not_followed(cache, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    shared = pathlib.Path(cache.folder)
    shared.mkdir()
    shared.chmod(0o1777)  # as /tmp
    (shared / TOTAL_NAME).symlink_to(victim)
    sha256, data = block(1)
    cache.put(sha256, data)
    assert victim.read_bytes() == b"mine"
    assert cache.get(sha256) == data
    own = shared / f"textscanner-{os.getuid()}"
    assert stat.S_IMODE(own.stat().st_mode) == 0o700 and (own / sha256[:2] / sha256).read_bytes() == data


def test_a_folder_that_another_user_has_planted_is_not_used_and_is_named_once(cache, tmp_path, monkeypatch, caplog):
    shared = pathlib.Path(cache.folder)
    shared.mkdir()
    shared.chmod(0o1777)
    another = os.getuid() + 1
    (shared / f"textscanner-{another}").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: another)
    monkeypatch.setattr("cluster.storage.private_folder.ROOT_USER", -1)
    row_group_cache._log_once.cache_clear()
    cache.put(*block(1))
    cache.put(*block(2))
    (record,) = caplog.records
    assert record.getMessage().endswith(f"textscanner-{another} belongs to another user, or others can write to it")
    assert cache.get(block(1)[0]) is None
    assert list((shared / f"textscanner-{another}").iterdir()) == []


def test_tilde_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    sha256, data = block(1)
    RowGroupCache("~/cache", SIZE).put(sha256, data)
    assert (tmp_path / "cache" / sha256[:2] / sha256).read_bytes() == data


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied"])
def test_a_damaged_file_is_a_miss_and_is_removed(cache, damage):
    sha256, data = block(1)
    cache.put(sha256, data)
    (path,) = files_of(cache)
    flipped = data[:500] + bytes([data[500] ^ 1]) + data[501:]
    path.write_bytes({"truncated": data[:-1], "flipped": flipped, "emptied": b""}[damage])
    assert cache.get(sha256) is None
    assert files_of(cache) == []
    cache.put(sha256, data)
    assert cache.get(sha256) == data


@pytest.mark.parametrize("key", ["", "../victim", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_a_key_that_is_no_hash_touches_no_file(cache, key):
    victim = pathlib.Path(cache.folder).parent / "victim"
    victim.write_bytes(b"mine")
    assert cache.get(key) is None
    cache.put(key, b"data")
    assert victim.read_bytes() == b"mine"
    assert files_of(cache) == []


def test_the_least_recently_used_file_is_evicted_first(cache):
    blocks = [block(number) for number in range(11)]
    for sha256, data in blocks[:10]:
        cache.put(sha256, data)
        time.sleep(0.01)
    assert cache.get(blocks[0][0]) is not None  # used again: now 1 is the oldest
    cache.put(*blocks[10])
    assert [number for number, (sha256, _) in enumerate(blocks) if cache.get(sha256) is None] == [1]


@pytest.mark.parametrize("seed", range(5))
def test_the_size_limit_holds_for_any_sequence_of_sizes(tmp_path, seed):
    rng = np.random.default_rng(seed)
    limit = int(rng.integers(2_000, 20_000))
    cache = RowGroupCache(str(tmp_path), limit)
    stored = {}
    for number in range(60):
        sha256, data = block(1000 * seed + number, int(rng.integers(1, limit // 2)))
        cache.put(sha256, data)
        stored[sha256] = data
        assert stored_bytes(cache) <= limit
        assert cache.get(sha256) == data  # what was stored last is never what is evicted
        known = str(rng.choice(list(stored)))
        assert cache.get(known) in (None, stored[known])
    assert stored_bytes(cache) > limit // 4  # no more is evicted than a limit needs


def test_content_larger_than_the_limit_is_not_stored_and_evicts_nothing(cache):
    small = block(1)
    cache.put(*small)
    cache.put(*block(2, 10 * SIZE + 1))
    assert [path.name for path in files_of(cache)] == [small[0]]


def test_a_lost_or_wrong_total_is_counted_again(cache):
    for number in range(10):
        cache.put(*block(number))
    for content in (b"", b"12 garbled", b"999999"):
        (pathlib.Path(cache.folder) / TOTAL_NAME).write_bytes(content)
        cache.put(*block(int(hashlib.sha256(content).hexdigest()[:6], 16)))
        assert 8 * SIZE <= stored_bytes(cache) <= 10 * SIZE


def test_leftovers_of_dead_writers_count_and_are_evicted(cache):
    cache.put(*block(1))
    leftover = files_of(cache)[0].parent / ".tmpabc"
    leftover.write_bytes(b"x" * 9 * SIZE)
    os.utime(leftover, (0, 0))
    (pathlib.Path(cache.folder) / TOTAL_NAME).unlink()
    cache.put(*block(2))
    assert not leftover.exists()
    assert cache.get(block(1)[0]) is not None


def test_a_full_disk_costs_only_the_copy_and_is_logged_once(cache, monkeypatch, caplog):
    cache.put(*block(1))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    row_group_cache._log_once.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(row_group_cache.os, "replace", full)
        cache.put(*block(2))
        cache.put(*block(3))
    (record,) = caplog.records
    assert record.getMessage().endswith("nothing new is cached, reading goes on without: No space left on device")
    assert [path.name for path in files_of(cache)] == [block(1)[0]]  # no temporary file either
    assert cache.get(block(2)[0]) is None
    cache.put(*block(2))
    assert cache.get(block(2)[0]) == block(2)[1]


def test_a_read_only_folder_serves_and_stores_nothing(cache, monkeypatch):
    """Simulated: the tests may run as root, whom permissions do not stop."""
    cache.put(*block(1))

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    for name in ("utime", "unlink", "open"):
        monkeypatch.setattr(row_group_cache.os, name, denied)
    assert cache.get(block(1)[0]) == block(1)[1]
    cache.put(*block(2))
    assert cache.get(block(2)[0]) is None


@pytest.mark.parametrize("folder", ["/proc/nowhere", "/dev/null/cache"])
def test_an_impossible_folder_never_raises(folder):
    cache = RowGroupCache(folder, SIZE)
    cache.put(*block(1))
    assert cache.get(block(1)[0]) is None


def test_a_lock_that_is_held_costs_only_the_copy(cache, monkeypatch):
    cache.put(*block(1))
    monkeypatch.setattr(row_group_cache, "LOCK_TIMEOUT_S", 0.05)
    with row_group_cache._locked(pathlib.Path(cache.folder) / TOTAL_NAME):
        cache.put(*block(2))
        assert cache.get(block(1)[0]) is not None  # readers need no lock
    assert cache.get(block(2)[0]) is None


def _hammer(folder: str, seed: int, errors) -> None:
    """Stores and reads 40 blocks, most of them more than once, in an order of its own."""
    cache = RowGroupCache(folder, 10 * SIZE)
    try:
        for number in np.random.default_rng(seed).integers(0, 40, 150):
            sha256, data = block(int(number))
            if cache.get(sha256) is None:
                cache.put(sha256, data)
            assert cache.get(sha256) in (None, data)
            assert stored_bytes(cache) <= 11 * SIZE
    except BaseException as error:
        errors.put(repr(error))
        raise


def test_two_processes_share_a_cache(cache):
    context = multiprocessing.get_context("spawn")
    errors = context.Queue()
    processes = [context.Process(target=_hammer, args=(cache.folder, seed, errors)) for seed in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0], errors.get(timeout=1)
    assert 8 * SIZE <= stored_bytes(cache) <= 10 * SIZE
    assert all(not path.name.startswith(".") for path in files_of(cache))
    assert int((pathlib.Path(cache.folder) / TOTAL_NAME).read_text()) == stored_bytes(cache)
