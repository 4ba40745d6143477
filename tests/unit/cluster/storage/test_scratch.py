"""Temporary folders disappear with their process, however it ends."""

import os
import signal
import subprocess
import sys
import tempfile

import pytest

from cluster.storage import scratch
from cluster.storage.scratch import LOCK_NAME, PREFIX, remove_stale, scratch_folder

OTHER_PROCESS = """
import sys
from cluster.storage.scratch import scratch_folder
folder = scratch_folder("checkpoint")
(folder / "weights").write_bytes(b"x" * 100)
print(folder, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder for temporary files of this test and its processes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    scratch._process_folder.cache_clear()
    yield tmp_path
    scratch._process_folder.cache_clear()
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.fixture
def other(folder):
    """Another process with a scratch folder."""
    command = [sys.executable, "-c", OTHER_PROCESS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.scratch = process.stdout.readline().strip()
        yield process
        process.kill()


def test_the_folder_of_a_killed_process_is_removed_by_the_next(folder, other):
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert os.path.exists(other.scratch)
    own = scratch_folder("checkpoint")
    assert not os.path.exists(other.scratch)
    assert own.is_dir() and len(list(folder.iterdir())) == 1


def test_the_folder_of_a_living_process_stays(folder, other):
    scratch_folder("checkpoint")
    assert remove_stale() == 0
    assert os.path.exists(other.scratch)


def test_a_process_that_ends_by_itself_leaves_nothing(folder, other):
    other.communicate("end\n")
    assert list(folder.iterdir()) == []


def test_a_folder_without_a_lock_or_behind_a_link_is_not_ours_to_remove(folder, tmp_path):
    unlocked = folder / f"{PREFIX}starting"
    unlocked.mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (target / LOCK_NAME).touch()
    (folder / f"{PREFIX}link").symlink_to(target)
    assert remove_stale() == 0
    assert unlocked.exists() and target.exists()
