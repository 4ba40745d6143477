"""A cache of row groups on a node's disk, shared by the node's processes.

Each file is named by the SHA-256 of its content and is verified when it is read: a damaged file is removed and counts
as a miss, so the cache never changes what is trained on. Readers take no lock. Writers lock the file that holds the
total size, which keeps the size limit exact without listing the folder for every write.

The cache is best-effort: on a full disk, in a read-only folder or one of another user, or on a file system without
locks, nothing new is cached, each process logs the reason once, and no error is raised.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import logging
import os
import pathlib
import re
import tempfile
import time
from collections.abc import Iterator

from cluster.storage.manifest_values import is_sha256
from cluster.storage.private_folder import is_private, user_name

logger = logging.getLogger(__name__)
TOTAL_NAME = "total_bytes"
LOCK_TIMEOUT_S = 1.0
LOCK_POLL_S = 0.005
# An eviction frees at least this fraction of the limit, so that the folder is listed once in many writes.
MIN_EVICTED_FRACTION = 0.05
_SUBFOLDER = re.compile(r"[0-9a-f]{2}")


@dataclasses.dataclass(frozen=True)
class RowGroupCache:
    """Content-addressed files in a folder; the least recently used ones are removed beyond the size limit.

    Attributes:
      folder: created on the first write, readable by its owner only; `~` is expanded. In a folder that others can write
        to, a sub-folder of this user is used instead.
      max_bytes: size limit over all files.
    """

    folder: str
    max_bytes: int

    @property
    def _root(self) -> pathlib.Path:
        folder = pathlib.Path(os.path.expanduser(self.folder))
        return folder / user_name() if folder.exists() and not is_private(folder) else folder

    def get(self, sha256: str) -> bytes | None:
        """Returns the content with this SHA-256, or None on a miss; marks it as recently used."""
        # From a manifest, which others may have written: anything but a hash could name a file outside the cache.
        if not is_sha256(sha256):
            return None
        try:
            root = self._root
            path = _path(root, sha256)
            if not is_private(root):  # a sub-folder that another user has planted
                return None
            data = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() != sha256:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):  # a read-only cache still serves
            os.utime(path)
        return data

    def put(self, sha256: str, data: bytes) -> None:
        """Stores `data`, whose SHA-256 the caller has verified, and evicts other files if the limit requires it."""
        if len(data) > self.max_bytes or not is_sha256(sha256):
            return
        try:
            root = self._root
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not is_private(root):
                _log_once(self.folder, f"{root} belongs to another user, or others can write to it")
                return
            path = _path(root, sha256)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with _locked(root / TOTAL_NAME) as total_file:
                if not path.exists():  # another process may have stored it in the meantime
                    self._reserve(root, total_file, len(data))
                    _write(path, data)
        except TimeoutError:  # other processes are writing: the next row group may find the lock free
            return
        except OSError as error:
            _log_once(self.folder, error.strerror or str(error))

    def _reserve(self, root: pathlib.Path, total_file: int, num_bytes: int) -> None:
        """Adds to the total before the file is written: a writer that dies leaves the total too high, never too low."""
        total = _read_total(total_file)
        if total is None or total + num_bytes > self.max_bytes:
            total = self._evict(root, num_bytes)
        os.ftruncate(total_file, 0)
        os.pwrite(total_file, str(total + num_bytes).encode(), 0)

    def _evict(self, root: pathlib.Path, num_bytes: int) -> int:
        """Makes room for `num_bytes`, least recently used files first; returns the size of what remains."""
        files = sorted(_files(root))
        total = sum(size for _, size, _ in files)
        if total + num_bytes <= self.max_bytes:
            return total  # the recorded total was missing or too high
        allowed = self.max_bytes - max(num_bytes, int(MIN_EVICTED_FRACTION * self.max_bytes))
        for _, size, path in files:
            if total <= allowed:
                break
            with contextlib.suppress(FileNotFoundError):  # a reader removed it as damaged
                os.unlink(path)
            total -= size
        return total


def _path(root: pathlib.Path, sha256: str) -> pathlib.Path:
    return root / sha256[:2] / sha256


def _files(root: pathlib.Path) -> Iterator[tuple[int, int, str]]:
    """Yields time of last use in ns, size and path of every file, including leftovers of dead writers."""
    for subfolder in os.scandir(root):
        if _SUBFOLDER.fullmatch(subfolder.name):
            for entry in os.scandir(subfolder):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat()
                    yield status.st_mtime_ns, status.st_size, entry.path


@functools.lru_cache(maxsize=64)
def _log_once(folder: str, reason: str) -> None:
    logger.warning("data.cache_dir %s: nothing new is cached, reading goes on without: %s", folder, reason)


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[int]:
    """Opens a file under an exclusive lock, which the system releases if this process dies.

    Raises:
      OSError: the file cannot be opened or locked; a TimeoutError if others hold the lock too long.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{path} is locked by another process") from None
                time.sleep(LOCK_POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


def _read_total(total_file: int) -> int | None:
    """The recorded total in bytes; None in a new cache, or if a writer died while it recorded one."""
    text = os.pread(total_file, 32, 0)
    return int(text) if text.isdigit() else None


def _write(path: pathlib.Path, data: bytes) -> None:
    """Writes a file atomically; without waiting for the disk, because readers verify the content."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
