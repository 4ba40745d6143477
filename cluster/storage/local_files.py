"""Atomic and durable writes, exact range reads and directory walks on a local disk.

A rename is atomic among processes, but after a power cut the new name may point at a file without content, or the name
may be missing. So the content is on the disk before the rename, and the folder's entry after it.
"""

from __future__ import annotations

import errno
import io
import os
import pathlib
import uuid
from collections.abc import Callable, Iterator
from typing import IO, Any

import fsspec.implementations.local
import pyarrow.fs

from cluster.errors import FileSizeError


def read_range(path: pathlib.Path, start: int, stop: int | None) -> bytes:
    """Bytes `start:stop` of a file; to its end if `stop` is None.

    Raises:
      FileSizeError: the file ends before `stop`.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size  # first: reading allocates what is requested, not what there is
        if stop is not None and stop > size:
            raise FileSizeError(f"{path} ends at byte {size}, but bytes {start}-{stop} were requested")
        file.seek(start)
        return file.read() if stop is None else file.read(stop - start)


def read_at_most(path: pathlib.Path, limit_bytes: int) -> bytes:
    """The content of a file.

    Raises:
      FileSizeError: it is larger than the limit.
    """
    with path.open("rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise FileSizeError(f"{path} is larger than {limit_bytes:,} bytes, the limit for such a file")
    return data


def write_atomically(
    target: pathlib.Path, data: bytes, publish: Callable[[pathlib.Path, pathlib.Path], Any] | None = None
) -> None:
    """Writes a temporary file beside the target, then publishes it under the target's name; on the disk on return.

    Args:
      target: the file to write; missing parent folders are created.
      publish: None overwrites an existing target; `os.link` raises FileExistsError for it.
    """
    _make_folders(target.parent)
    partial = _partial_path(target)
    try:
        with partial.open("xb") as file:
            file.write(data)
            sync_file(file)
        (publish or os.replace)(partial, target)
        sync_folder(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_if_absent(target: pathlib.Path, data: bytes) -> bool:
    """Writes a file if it does not exist, atomically among concurrent writers; returns whether it was written."""
    try:
        # Unlike open("x"), a hard link never shows a half-written file.
        write_atomically(target, data, publish=os.link)
    except FileExistsError:
        return False
    return True


def sync_file(file: IO[Any]) -> None:
    """Waits until what was written to an open file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: pathlib.Path) -> None:
    """Waits until the names in a folder are on the disk; does nothing on file systems that cannot do this."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def walk_files(folder: pathlib.Path, prefix: str = "") -> Iterator[str]:
    """The paths of all files below a folder, relative to it and sorted within each folder."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from walk_files(folder / entry.name, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name


class AtomicFileSystem(pyarrow.fs.FSSpecHandler):  # type: ignore[misc]  # pyarrow has no types
    """A local pyarrow filesystem whose files appear when their streams are closed."""

    def __init__(self) -> None:
        super().__init__(fsspec.implementations.local.LocalFileSystem(auto_mkdir=True))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def open_output_stream(self, path: str, metadata: Any) -> pyarrow.NativeFile:
        return pyarrow.PythonFile(_AtomicWriter(pathlib.Path(path)), mode="w")


class _AtomicWriter(io.BufferedWriter):
    def __init__(self, target: pathlib.Path) -> None:
        self._target, self._partial = target, _partial_path(target)
        super().__init__(io.FileIO(self._partial, "x"))

    def close(self) -> None:
        if self.closed:
            return
        try:
            try:
                sync_file(self)
            finally:
                super().close()
            os.replace(self._partial, self._target)
            sync_folder(self._target.parent)
        finally:
            self._partial.unlink(missing_ok=True)


def _make_folders(folder: pathlib.Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        sync_folder(path.parent)


def _partial_path(target: pathlib.Path) -> pathlib.Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
