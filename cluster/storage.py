"""URIs -> a filesystem and a path; and the layout of a run's folder, the only builder of its paths.

A URI is a plain path, `file://...` or `s3://bucket/prefix`. S3 settings come from the standard environment
(`AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_REGION`); pyarrow ignores the endpoint variables, so they are handed to
it here. Credentials come from the standard chain and are looked up again in every process: nothing here holds one.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import uuid

import pyarrow.fs


@dataclasses.dataclass(frozen=True, eq=False)
class Location:
    """A place: `path` on `filesystem`; `uri` is how a person wrote it."""

    uri: str
    filesystem: pyarrow.fs.FileSystem
    path: str

    def join(self, *parts: str) -> Location:
        """The place below this one."""
        tail = "/".join(parts)
        return Location(f"{self.uri.rstrip('/')}/{tail}", self.filesystem, f"{self.path.rstrip('/')}/{tail}")

    def exists(self) -> bool:
        """Whether a file or folder is there."""
        return self.filesystem.get_file_info(self.path).type != pyarrow.fs.FileType.NotFound

    def read_bytes(self) -> bytes:
        """The file's content.

        Raises:
          OSError: it is not there, or storage does not answer.
        """
        with self.filesystem.open_input_stream(self.path) as stream:
            return stream.read()

    def write_bytes(self, data: bytes) -> None:
        """Writes the file so that no reader sees half of it; folders above it are made on a disk."""
        if not isinstance(self.filesystem, pyarrow.fs.LocalFileSystem):
            with self.filesystem.open_output_stream(self.path) as stream:
                stream.write(data)
            return
        target = pathlib.Path(self.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
        try:
            partial.write_bytes(data)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def delete(self) -> None:
        """Removes the file if it is there."""
        if self.exists():
            self.filesystem.delete_file(self.path)


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
        return Location(uri, _s3(), rest.rstrip("/"))
    raise ValueError(f"{uri} has the scheme {scheme!r}: wanted a path, file:// or s3://bucket/prefix")


def absolute_uri(uri: str) -> str:
    """The URI as every process understands it: a relative path is resolved here, workers run in other folders."""
    return uri if "://" in uri else str(pathlib.Path(uri).expanduser().absolute())


def _s3() -> pyarrow.fs.FileSystem:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    options = {"region": region} if region else {}
    if endpoint:
        options["endpoint_override"] = endpoint
    return pyarrow.fs.S3FileSystem(**options)


@dataclasses.dataclass(frozen=True)
class RunLayout:
    """Paths of a run, `storage_uri/name`. In `root` Ray Train keeps `step_*` checkpoints, the journal its files."""

    storage_uri: str
    name: str

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ValueError(f"--name is {self.name!r}: must be a plain folder name without '/' or a leading dot")

    @property
    def root(self) -> str:
        """The run's folder."""
        return f"{self.storage_uri.rstrip('/')}/{self.name}"

    @property
    def config(self) -> str:
        """The config that claimed the folder."""
        return f"{self.root}/config.json"
