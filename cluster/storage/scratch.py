"""Temporary folders that do not outlive their process by much.

A process that is killed cannot remove its folders, and a run that is restarted often would fill the disk with
checkpoints. So each process holds a lock in its folder, which the system releases however the process ends, and the
next process that needs a folder removes those that nobody holds.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import os
import pathlib
import shutil
import tempfile

PREFIX = "textscanner-scratch-"
LOCK_NAME = "lock"


def scratch_folder(purpose: str) -> pathlib.Path:
    """A new, empty folder on this node's disk for the life of this process, readable by its user only.

    Args:
      purpose: start of its name.
    """
    return pathlib.Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=_process_folder(os.getpid())))


@functools.lru_cache(maxsize=1)
def _process_folder(pid: int) -> pathlib.Path:
    """The folder of this process; `pid` gives a forked child one of its own."""
    remove_stale()
    folder = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX))
    # Under its final name the file is always locked: others take one that is not for a dead process's.
    unlocked = folder / f"new-{LOCK_NAME}"
    descriptor = os.open(unlocked, os.O_RDWR | os.O_CREAT, 0o600)  # stays open as long as the process lives
    with contextlib.suppress(OSError):  # a file system without locks: nobody will remove the folder
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        unlocked.rename(folder / LOCK_NAME)
    atexit.register(_remove, folder, pid)
    return folder


def remove_stale() -> int:
    """Removes the folders of this user's processes that have ended; returns their number."""
    candidates = pathlib.Path(tempfile.gettempdir()).glob(f"{PREFIX}*")
    return sum(_remove_if_stale(folder) for folder in candidates)


def _remove_if_stale(folder: pathlib.Path) -> bool:
    with contextlib.suppress(OSError):  # another process removes it at the same time
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return False
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if the process lives
            shutil.rmtree(folder, ignore_errors=True)
            return True
        finally:
            os.close(descriptor)
    return False


def _remove(folder: pathlib.Path, pid: int) -> None:
    if os.getpid() == pid:  # not in a forked child
        shutil.rmtree(folder, ignore_errors=True)
