"""One interface to files on a local disk and in an S3 bucket, addressed by URI.

A URI is a plain path, `file://...` or `s3://bucket/prefix`. `open_uri` returns a `LocalLocation` or an `S3Location`.
All writes are atomic: on a disk by a rename, in a bucket by a single put. They do not go through a pyarrow output
stream, because an exception inside its `with` block closes it, which publishes the truncated object.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import hashlib
import io
import pathlib
import shutil
from collections.abc import Iterator
from typing import IO, Self

import filelock
import pyarrow.fs

from cluster.errors import StorageError
from cluster.storage.local_files import (
    AtomicFileSystem,
    read_at_most,
    read_range,
    sync_file,
    walk_files,
    write_atomically,
    write_if_absent,
)
from cluster.storage.private_folder import temporary_folder
from cluster.storage.s3 import (
    RANGE_BYTES,
    S3File,
    abort_multipart_uploads,
    delete_keys,
    get_object,
    list_keys,
    put_new_object,
    put_object,
    s3_filesystem,
    translate_errors,
)
from textscanner.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Location(abc.ABC):
    """A file or folder. Every method raises StorageError, and NotFoundError for a file that does not exist.

    Attributes:
      uri: as the user wrote it; it appears in error messages.
      filesystem: for Ray Train and pyarrow, which take a filesystem and a path.
      path: of the location on `filesystem`; in a bucket `bucket/key`.
    """

    uri: str
    filesystem: pyarrow.fs.FileSystem
    path: str

    @property
    @abc.abstractmethod
    def is_local(self) -> bool:
        """Whether it is on a disk of this machine."""

    def join(self, *parts: str) -> Self:
        """The location below this one."""
        tail = "/".join(parts)
        return dataclasses.replace(self, uri=f"{self.uri.rstrip('/')}/{tail}", path=f"{self.path.rstrip('/')}/{tail}")

    def exists(self) -> bool:
        """Whether there is such a file or folder."""
        with translate_errors(self.uri):
            return bool(self.filesystem.get_file_info(self.path).type != pyarrow.fs.FileType.NotFound)

    def size(self) -> int:
        """Size of the file in bytes."""
        return int(self._info().size)

    def version(self) -> str:
        """Size and modification time of the file: differs once the file has been overwritten."""
        info = self._info()
        return f"{info.size} {info.mtime_ns}"

    def names(self) -> list[tuple[str, bool]]:
        """(name, whether it is a folder) of each entry directly below, sorted; empty if nothing exists."""
        with translate_errors(self.uri):
            selector = pyarrow.fs.FileSelector(self.path, allow_not_found=True)
            infos = self.filesystem.get_file_info(selector)
        return sorted((info.base_name, info.type == pyarrow.fs.FileType.Directory) for info in infos)

    def changed_s(self) -> float:
        """When this, or a file directly below, was last written, in seconds since the epoch; 0 if unknown."""
        with translate_errors(self.uri):
            selector = pyarrow.fs.FileSelector(self.path, allow_not_found=True)
            infos = [self.filesystem.get_file_info(self.path), *self.filesystem.get_file_info(selector)]
        return max(info.mtime_ns or 0 for info in infos) / 1e9

    def delete(self) -> None:
        """Deletes the file if it exists."""
        with translate_errors(self.uri):
            if self.exists():
                self.filesystem.delete_file(self.path)

    @abc.abstractmethod
    def read_bytes(self, start: int = 0, stop: int | None = None) -> bytes:
        """The file's content, or bytes `start:stop` of it; from a bucket in one request."""

    @abc.abstractmethod
    def read_at_most(self, limit_bytes: int) -> bytes:
        """The content of a file that others may have written.

        Raises:
          FileSizeError: it is larger than the limit; it is not read into memory.
        """

    @abc.abstractmethod
    def open(self) -> IO[bytes]:
        """Opens the file for reading and seeking; reads from a bucket are retried range by range."""

    @abc.abstractmethod
    def write_bytes(self, data: bytes) -> None:
        """Writes the file atomically, with its parent folders."""

    @abc.abstractmethod
    def write_new(self, data: bytes) -> bool:
        """Writes the file if it does not exist. Of concurrent writers one wins; the others get False."""

    @abc.abstractmethod
    def walk(self) -> Iterator[str]:
        """The paths of all files below, relative to this location, in order."""

    @abc.abstractmethod
    def delete_tree(self) -> None:
        """Deletes everything below, unfinished uploads included."""

    @abc.abstractmethod
    def abort_uploads(self, min_age_s: float = 0.0) -> int:
        """Aborts unfinished multipart uploads below; returns how many. A disk has none.

        Args:
          min_age_s: only those that began at least this long ago: younger ones may be in progress.
        """

    @abc.abstractmethod
    def atomic_filesystem(self) -> pyarrow.fs.FileSystem:
        """A filesystem for libraries that write files themselves: a file appears once its stream is closed."""

    def _info(self) -> pyarrow.fs.FileInfo:
        with translate_errors(self.uri):
            info = self.filesystem.get_file_info(self.path)
            if info.type == pyarrow.fs.FileType.NotFound:
                raise FileNotFoundError(self.path)
            return info


class LocalLocation(Location):
    """A file or folder on a disk of this machine (or a network file system mounted there)."""

    @property
    def is_local(self) -> bool:
        return True

    def read_bytes(self, start: int = 0, stop: int | None = None) -> bytes:
        with translate_errors(self.uri):
            return read_range(pathlib.Path(self.path), start, stop)

    def read_at_most(self, limit_bytes: int) -> bytes:
        with translate_errors(self.uri):
            return read_at_most(pathlib.Path(self.path), limit_bytes)

    def open(self) -> IO[bytes]:
        with translate_errors(self.uri):
            return pathlib.Path(self.path).open("rb")

    def write_bytes(self, data: bytes) -> None:
        with _write_errors(self.uri):
            write_atomically(pathlib.Path(self.path), data)

    def write_new(self, data: bytes) -> bool:
        with _write_errors(self.uri):
            return write_if_absent(pathlib.Path(self.path), data)

    def walk(self) -> Iterator[str]:
        with translate_errors(self.uri):
            yield from walk_files(pathlib.Path(self.path))

    def delete_tree(self) -> None:
        with translate_errors(self.uri):
            if self.exists():
                self.filesystem.delete_dir(self.path)

    def abort_uploads(self, min_age_s: float = 0.0) -> int:
        return 0

    def atomic_filesystem(self) -> pyarrow.fs.FileSystem:
        return pyarrow.fs.PyFileSystem(AtomicFileSystem())


class S3Location(Location):
    """An object or key prefix in a bucket."""

    @property
    def is_local(self) -> bool:
        return False

    def read_bytes(self, start: int = 0, stop: int | None = None) -> bytes:
        with translate_errors(self.uri):
            return get_object(self.path, start, stop)

    def read_at_most(self, limit_bytes: int) -> bytes:
        with translate_errors(self.uri):
            return get_object(self.path, limit_bytes=limit_bytes)

    def open(self) -> IO[bytes]:
        with translate_errors(self.uri):
            return io.BufferedReader(S3File(self.path, self.size()), RANGE_BYTES)

    def write_bytes(self, data: bytes) -> None:
        with translate_errors(self.uri):
            put_object(self.path, io.BytesIO(data))

    def write_new(self, data: bytes) -> bool:
        with translate_errors(self.uri):
            return put_new_object(self.path, data)

    def walk(self) -> Iterator[str]:
        bucket, prefix = self._bucket_and_prefix()
        with translate_errors(self.uri):
            for keys in list_keys(bucket, prefix):
                yield from (key.removeprefix(prefix) for key in keys)

    def delete_tree(self) -> None:
        self.abort_uploads()
        with translate_errors(self.uri):
            delete_keys(*self._deletable_prefix())

    def abort_uploads(self, min_age_s: float = 0.0) -> int:
        with translate_errors(self.uri):
            return abort_multipart_uploads(*self._deletable_prefix(), min_age_s)

    def atomic_filesystem(self) -> pyarrow.fs.FileSystem:
        return self.filesystem

    def _bucket_and_prefix(self) -> tuple[str, str]:
        """The prefix ends with a slash, so that `runs/a` does not cover `runs/ab`; it is empty for a whole bucket."""
        bucket, _, key = self.path.partition("/")
        return bucket, f"{key}/" if key else ""

    def _deletable_prefix(self) -> tuple[str, str]:
        bucket, prefix = self._bucket_and_prefix()
        if not prefix:
            raise StorageError(f"{self.uri} is a whole bucket, which may hold other data: only a prefix can be deleted")
        return bucket, prefix


@contextlib.contextmanager
def _write_errors(uri: str) -> Iterator[None]:
    """Turns the failure to write a local file into a StorageError. "Does not exist" would be no reason: a missing
    folder is created, so the system names the folder that cannot be."""
    try:
        yield
    except OSError as error:
        parent = f" ({error.filename})" if error.filename and str(error.filename) in uri else ""
        raise StorageError(f"{uri} cannot be written: {error.strerror or error}{parent}; check the folder") from None


def open_uri(uri: str) -> Location:
    """The location of a URI; nothing is read.

    Raises:
      UserError: the scheme is not supported, or an S3 URI has no bucket.
    """
    scheme, separator, rest = str(uri).partition("://")
    if not separator:
        return LocalLocation(str(uri), pyarrow.fs.LocalFileSystem(), absolute_uri(str(uri)))
    if scheme == "file":
        return LocalLocation(uri, pyarrow.fs.LocalFileSystem(), rest.rstrip("/") or "/")
    if scheme == "s3":
        if not rest.strip("/"):
            raise UserError(f"{uri} names no bucket: use s3://bucket/prefix")
        return S3Location(uri, s3_filesystem(), rest.strip("/"))
    raise UserError(f"{uri} has the scheme {scheme!r}: use a path, file:// or s3://bucket/prefix")


def absolute_uri(uri: str) -> str:
    """The URI with a relative path resolved against this process's folder: workers run in other folders."""
    return uri if "://" in uri else str(pathlib.Path(uri).expanduser().absolute())


def fetch_file(uri: str) -> str:
    """A path on this node's disk: the file itself, or a copy of the object that all processes of the node share.

    Copies are cached in this user's folder for temporary files, one per object and version.

    Raises:
      UserError: that folder belongs to another user.
      StorageError: there is no such file, or storage does not answer.
    """
    source = open_uri(uri)
    version = source.version()  # raises if the file does not exist
    if source.is_local:
        return source.path
    digest = hashlib.sha256(f"{uri} {version}".encode()).hexdigest()[:16]
    path = temporary_folder("copies") / f"{digest}-{source.path.rpartition('/')[2]}"
    with filelock.FileLock(f"{path}.lock"):  # one process downloads, the others wait for its copy
        if not path.exists():
            partial = path.with_name(f"{path.name}.partial")
            with source.open() as remote, partial.open("wb") as copy:
                shutil.copyfileobj(remote, copy, RANGE_BYTES)
                sync_file(copy)
            partial.replace(path)
    return str(path)
