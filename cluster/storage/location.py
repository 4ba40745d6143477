"""URIs -> places that are read and written the same way on a disk and in a bucket.

A URI is a plain path, `file://...` or `s3://bucket/prefix`. What is written appears whole or not at all: on a disk by
a rename, in a bucket by one put (an exception inside a pyarrow output stream would publish the truncated object).
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import pathlib
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from typing import IO, Any

import filelock
import fsspec.implementations.local
import pyarrow.fs

from cluster.errors import StorageError
from cluster.storage.s3 import (
    RANGE_BYTES,
    S3File,
    get_object,
    put_object,
    s3_client,
    s3_filesystem,
    status_of,
    told,
    with_retries,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Location:
    """A place: `path` on `filesystem`; `uri` is how a person wrote it. Every method raises StorageError."""

    uri: str
    filesystem: pyarrow.fs.FileSystem
    path: str

    @property
    def is_local(self) -> bool:
        """Whether it is on a disk of this machine."""
        return isinstance(self.filesystem, pyarrow.fs.LocalFileSystem)

    def filesystem_of_whole_files(self) -> pyarrow.fs.FileSystem:
        """The filesystem for code that writes by itself: here too a file appears whole or not at all."""
        return pyarrow.fs.PyFileSystem(_WholeFiles()) if self.is_local else self.filesystem

    def join(self, *parts: str) -> Location:
        """The place below this one."""
        tail = "/".join(parts)
        return Location(f"{self.uri.rstrip('/')}/{tail}", self.filesystem, f"{self.path.rstrip('/')}/{tail}")

    def exists(self) -> bool:
        """Whether a file or folder is there."""
        with told(self.uri):
            return self.filesystem.get_file_info(self.path).type != pyarrow.fs.FileType.NotFound

    def read_bytes(self, start: int = 0, stop: int | None = None) -> bytes:
        """The file's content, or bytes `start:stop` of it in one request."""
        with told(self.uri):
            return _read(self.path, start, stop) if self.is_local else get_object(self.path, start, stop)

    def write_bytes(self, data: bytes) -> None:
        """Writes the file so that no reader sees half of it; folders above it are made on a disk."""
        with told(self.uri):
            if self.is_local:
                _write_local(pathlib.Path(self.path), data)
            else:
                put_object(self.path, io.BytesIO(data))

    def write_new(self, data: bytes) -> bool:
        """Writes the file only where there is none, whoever else tries at the same time; False if there is one."""
        with told(self.uri):
            if not self.is_local:
                return _create_s3(self.path, data)
            try:
                # A link fails where there is one; unlike open("x") it never shows half a file.
                _write_local(pathlib.Path(self.path), data, place=os.link)
            except FileExistsError:
                return False
            return True

    def open(self) -> IO[bytes]:
        """The file for reading and seeking; reads from a bucket are retried range by range."""
        with told(self.uri):
            if self.is_local:
                return pathlib.Path(self.path).open("rb")
            return io.BufferedReader(S3File(self.path, self.size()), RANGE_BYTES)

    def size(self) -> int:
        """Bytes of the file."""
        return self._info().size

    def version(self) -> str:
        """Changes when the file does: its size and time."""
        info = self._info()
        return f"{info.size} {info.mtime_ns}"

    def _info(self) -> pyarrow.fs.FileInfo:
        with told(self.uri):
            info = self.filesystem.get_file_info(self.path)
            if info.type == pyarrow.fs.FileType.NotFound:
                raise FileNotFoundError(self.path)
            return info

    def delete(self) -> None:
        """Removes the file if it is there."""
        with told(self.uri):
            if self.exists():
                self.filesystem.delete_file(self.path)

    def delete_tree(self) -> None:
        """Removes everything below, and uploads below that were never finished."""
        with told(self.uri):
            if self.is_local:
                if self.exists():
                    self.filesystem.delete_dir(self.path)
                return
            abort_uploads(self)
            client = s3_client()
            bucket, _, prefix = self.path.partition("/")
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
                keys = [{"Key": found["Key"]} for found in page.get("Contents", [])]
                if keys:
                    client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})

    def names(self) -> list[tuple[str, bool]]:
        """(name, is a folder) of everything directly below, in order; empty where there is nothing."""
        with told(self.uri):
            selector = pyarrow.fs.FileSelector(self.path, allow_not_found=True)
            infos = self.filesystem.get_file_info(selector)
        return sorted((info.base_name, info.type == pyarrow.fs.FileType.Directory) for info in infos)

    def walk(self) -> Iterator[str]:
        """The names of all files below, relative to this place, in order; a page (on a disk: a folder) at a time."""
        with told(self.uri):
            if self.is_local:
                yield from _walk_local(pathlib.Path(self.path), "")
                return
            bucket, _, prefix = self.path.partition("/")
            start = f"{prefix}/" if prefix else ""
            pages = s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start)
            for page in pages:
                yield from (found["Key"][len(start) :] for found in page.get("Contents", []))


def open_uri(uri: str) -> Location:
    """The place of a URI; nothing is read.

    Raises:
      ValueError: the scheme is not known, or an s3 URI names no bucket.
    """
    scheme, separator, rest = str(uri).partition("://")
    if not separator:
        return Location(str(uri), pyarrow.fs.LocalFileSystem(), str(pathlib.Path(uri).expanduser().absolute()))
    if scheme == "file":
        return Location(uri, pyarrow.fs.LocalFileSystem(), rest.rstrip("/") or "/")
    if scheme == "s3":
        if not rest.strip("/"):
            raise ValueError(f"{uri} names no bucket: wanted s3://bucket/prefix")
        return Location(uri, s3_filesystem(), rest.strip("/"))
    raise ValueError(f"{uri} has the scheme {scheme!r}: wanted a path, file:// or s3://bucket/prefix")


def absolute_uri(uri: str) -> str:
    """The URI as every process understands it: a relative path is resolved here, workers run in other folders."""
    return uri if "://" in uri else str(pathlib.Path(uri).expanduser().absolute())


def fetch_file(uri: str) -> str:
    """The path of a file on this node's disk: the file itself, or a copy of an object that the node's processes share.

    Copies lie in the folder for temporary files, one per object and version.

    Raises:
      StorageError: there is none, or storage does not answer.
    """
    place = open_uri(uri)
    if place.is_local:
        place.version()  # raises where there is none
        return place.path
    version = hashlib.sha256(f"{uri} {place.version()}".encode()).hexdigest()[:16]
    path = pathlib.Path(tempfile.gettempdir()) / "textscanner-copies" / f"{version}-{place.path.rpartition('/')[2]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{path}.lock"):
        if not path.exists():
            partial = path.with_name(f"{path.name}.partial")
            with place.open() as source, partial.open("wb") as target:
                shutil.copyfileobj(source, target, RANGE_BYTES)
            partial.replace(path)
    return str(path)


def abort_uploads(location: Location) -> int:
    """Ends multipart uploads below a place that were never finished; they cost money and no listing shows them.

    Returns:
      how many there were.
    """
    if location.is_local:
        return 0
    client = s3_client()
    bucket, _, prefix = location.path.partition("/")
    aborted = 0
    with told(location.uri):
        for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
            for upload in page.get("Uploads", []):
                client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                aborted += 1
    return aborted


def _read(path: str, start: int, stop: int | None) -> bytes:
    with pathlib.Path(path).open("rb") as file:
        file.seek(start)
        data = file.read() if stop is None else file.read(stop - start)
    if stop is not None and len(data) != stop - start:
        raise StorageError(f"{path} ends at byte {start + len(data)}, wanted {start}-{stop}")
    return data


def _write_local(
    target: pathlib.Path, data: bytes, place: Callable[[pathlib.Path, pathlib.Path], Any] = os.replace
) -> None:
    """Writes beside the target and puts it in its place when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(target)
    try:
        partial.write_bytes(data)
        place(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _partial(target: pathlib.Path) -> pathlib.Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")


class _WholeFiles(pyarrow.fs.FSSpecHandler):
    """A disk of this machine whose files appear when their streams are closed."""

    def __init__(self) -> None:
        super().__init__(fsspec.implementations.local.LocalFileSystem(auto_mkdir=True))

    def __reduce__(self) -> tuple:
        return type(self), ()

    def open_output_stream(self, path: str, metadata: Any) -> pyarrow.NativeFile:
        """As pyarrow."""
        return pyarrow.PythonFile(_WholeFile(pathlib.Path(path)), mode="w")


class _WholeFile(io.BufferedWriter):
    def __init__(self, target: pathlib.Path) -> None:
        self._target, self._partial = target, _partial(target)
        super().__init__(io.FileIO(self._partial, "x"))

    def close(self) -> None:
        if self.closed:
            return
        try:
            super().close()
            self._partial.replace(self._target)
        finally:
            self._partial.unlink(missing_ok=True)


def _walk_local(folder: pathlib.Path, prefix: str) -> Iterator[str]:
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.is_dir():
            yield from _walk_local(folder / entry.name, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name


def _create_s3(path: str, data: bytes) -> bool:
    bucket, _, key = path.partition("/")
    client = s3_client()

    def put() -> bool:
        try:
            client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
        except client.exceptions.ClientError as error:
            if status_of(error) == 412:
                # Our own put, whose answer was lost, looks like another's: the content tells.
                return client.get_object(Bucket=bucket, Key=key)["Body"].read() == data
            raise
        return True

    return with_retries(put)
