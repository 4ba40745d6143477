"""The interface of an importer, and the files that importers read: a local folder, a prefix in a bucket, or a zip."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import posixpath
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any, Protocol, TypeVar

from cluster.errors import FileSizeError, NotFoundError, StorageError
from cluster.storage.location import open_uri
from textscanner.data.annotations import Reject, Word
from textscanner.errors import UserError

Part = Any
T = TypeVar("T")

MAX_FILE_BYTES = 64 << 20  # of an image or another file that is read as a whole, unpacked
MAX_PATH_BYTES, MAX_NAME_BYTES = 1024, 255  # S3's limit for a key, and a disk's for each part of a path
MAX_LINE_CHARACTERS = 1 << 20  # of a label file
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, OverflowError)
# The other methods of zip have no limit on what one read may inflate to in memory.
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Source(Protocol):
    """Labelled images, read in parts. Sources and parts are small and can be pickled: one Ray task reads one part."""

    def count(self) -> int:
        """Number of rows, valid or not; the number of parts if the rows can only be counted by reading the data."""
        ...

    def version(self) -> str:
        """A string that changes when the result of `parts` may have changed."""
        ...

    def parts(self, rows: int) -> Iterator[Part]:
        """Splits the source into parts of about `rows` rows, the same ones on every call."""
        ...

    def read(self, part: Part) -> Iterator[Word | Reject]:
        """Reads the rows of a part."""
        ...


class Files(Protocol):
    """Files by name, relative to a folder."""

    def read(self, name: str) -> bytes:
        """Returns a file's content.

        Raises:
          KeyError: there is no such file.
          UserError: the name leaves the folder, or the file is larger than MAX_FILE_BYTES.
        """
        ...

    def open(self, name: str) -> IO[bytes]:
        """Opens a file for reading.

        Raises:
          KeyError: there is no such file.
          UserError: the name leaves the folder, or the file cannot be unpacked.
        """
        ...

    def names(self) -> Iterator[str]:
        """Lists all files, sorted, those in sub-folders included."""
        ...


def inside(name: str) -> str:
    """A name from a label file, without its `..` components.

    Raises:
      UserError: it names a file outside the folder that it is relative to: `../../.ssh/id_ed25519` is no image. Or it
        is longer than a name can be.
    """
    encoded = name.encode(errors="replace")
    if len(encoded) > MAX_PATH_BYTES or max(map(len, encoded.split(b"/"))) > MAX_NAME_BYTES:
        raise UserError(f"{name[:80]!r}... is longer than a file's name can be")
    if ".." not in name.split("/"):
        return name
    normalized = posixpath.normpath(name.lstrip("/"))
    if normalized.split("/")[0] == "..":
        raise UserError(f"{name!r:.200} is outside the folder of the data: name files inside it")
    return normalized


@dataclasses.dataclass(frozen=True)
class _Folder:
    uri: str

    def read(self, name: str) -> bytes:
        try:
            return open_uri(self.uri).join(inside(name)).read_at_most(MAX_FILE_BYTES)
        except NotFoundError:
            raise KeyError(name) from None
        except FileSizeError as error:
            raise UserError(str(error)) from None

    def open(self, name: str) -> IO[bytes]:
        try:
            return open_uri(self.uri).join(inside(name)).open()
        except NotFoundError:
            raise KeyError(name) from None

    def names(self) -> Iterator[str]:
        return open_uri(self.uri).walk()


class _Zip:
    """A zip archive. If everything lies in a single top-level folder, names are relative to that folder."""

    def __init__(self, uri: str) -> None:
        try:
            self._archive = zipfile.ZipFile(open_uri(uri).open())
        except StorageError:
            raise
        except (*DAMAGED, ValueError, OSError) as error:  # zipfile lets through what its offsets and names cause
            raise UserError(f"{uri} is not a valid zip archive ({error}): pack or copy it again") from None
        names = [name for name in self._archive.namelist() if not name.endswith("/")]
        top_folders = {name.partition("/")[0] for name in names if not name.startswith("__MACOSX/")}
        has_one_top_folder = len(top_folders) == 1 and all("/" in name for name in names)
        self._prefix = f"{top_folders.pop()}/" if has_one_top_folder else ""

    def read(self, name: str) -> bytes:
        with self.open(name) as member:
            try:
                data = member.read(MAX_FILE_BYTES + 1)  # the size that the archive states may be wrong
            except StorageError:
                raise
            except (*DAMAGED, ValueError, OSError):
                return b""  # counted as an image that cannot be decoded
        if len(data) > MAX_FILE_BYTES:
            raise UserError(f"{name} is larger than {MAX_FILE_BYTES:,} bytes, the limit for such a file")
        return data

    def open(self, name: str) -> IO[bytes]:
        member = self._archive.getinfo(self._prefix + inside(name))
        if member.compress_type not in ZIP_METHODS:
            raise UserError(f"{name} is packed with method {member.compress_type}: only stored and deflated are read")
        try:
            return self._archive.open(member)
        except StorageError:
            raise
        except (*DAMAGED, RuntimeError, ValueError, OSError) as error:  # RuntimeError: encrypted; OSError: a bad offset
            raise UserError(f"{name} cannot be unpacked: {error}") from None

    def names(self) -> Iterator[str]:
        names = (name for name in self._archive.namelist() if not name.endswith("/"))
        return (name[len(self._prefix) :] for name in sorted(names) if name.startswith(self._prefix))


@functools.lru_cache(maxsize=4)
def open_files(uri: str) -> Files:
    """Opens a folder, a prefix or a zip; a process opens each only once.

    Raises:
      UserError: the URI ends in .zip and is not a zip archive.
      StorageError: the zip does not exist, or storage does not answer.
    """
    return _Zip(uri) if uri.lower().endswith(".zip") else _Folder(uri)


def file_version(uri: str, name: str) -> str:
    """The version of a file of `open_files(uri)`; of the zip itself if it is in a zip."""
    location = open_uri(uri)
    return (location if uri.lower().endswith(".zip") else location.join(name)).version()


def has(files: Files, name: str) -> bool:
    """Whether there is a file of this name."""
    try:
        files.open(name).close()
    except KeyError:
        return False
    return True


def text_lines(files: Files, name: str, uri: str) -> Iterator[str]:
    """Streams the lines of a UTF-8 file, line ends included; a byte-order mark is dropped.

    Raises:
      UserError: the file is not UTF-8, is damaged, or has a line of more than MAX_LINE_CHARACTERS.
    """
    with files.open(name) as raw, io.TextIOWrapper(raw, "utf-8-sig", newline="") as lines:
        try:
            while line := lines.readline(MAX_LINE_CHARACTERS + 1):
                if len(line) > MAX_LINE_CHARACTERS:
                    raise UserError(f"{uri}/{name} has a line of more than {MAX_LINE_CHARACTERS:,} characters")
                yield line
        except UnicodeDecodeError as error:
            raise UserError(f"{uri}/{name} is not UTF-8 ({error}): convert it to UTF-8") from None
        except DAMAGED as error:
            raise UserError(f"{uri}/{name} is damaged ({error}): pack or copy it again") from None


def batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Groups items into tuples of `size`; the last one may be shorter."""
    iterator = iter(items)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch
