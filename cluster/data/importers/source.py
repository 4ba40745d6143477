"""What every importer is, and the files that importers read: a folder on a disk, a prefix in a bucket, or a zip."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any, Protocol, TypeVar

from cluster.errors import NotFoundError
from cluster.storage.location import open_uri
from textscanner.data.annotations import Reject, Word

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")

Part = Any
T = TypeVar("T")


class Source(Protocol):
    """Labelled images. A part is what one task reads; sources and parts are small and pickle."""

    def count(self) -> int:
        """Rows in all, good or bad; where only reading everything would tell, the number of parts."""
        ...

    def version(self) -> str:
        """Changes when what `parts` gives may have changed."""
        ...

    def parts(self, rows: int) -> Iterator[Part]:
        """Everything in pieces of about `rows` rows, always the same ones."""
        ...

    def read(self, part: Part) -> Iterator[Word | Reject]:
        """The rows of a part."""
        ...


class Files(Protocol):
    """Named files."""

    def read(self, name: str) -> bytes:
        """A file's content; KeyError where there is none."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """A file for reading; KeyError where there is none."""
        ...

    def names(self) -> Iterator[str]:
        """All names below, in order."""
        ...


@dataclasses.dataclass(frozen=True)
class _Tree:
    uri: str

    def read(self, name: str) -> bytes:
        try:
            return open_uri(self.uri).join(name).read_bytes()
        except NotFoundError:
            raise KeyError(name) from None

    def open(self, name: str) -> IO[bytes]:
        try:
            return open_uri(self.uri).join(name).open()
        except NotFoundError:
            raise KeyError(name) from None

    def names(self) -> Iterator[str]:
        return open_uri(self.uri).walk()


class _Zip:
    """A zip archive; a single folder around everything in it, as archivers like to put there, is looked through."""

    def __init__(self, uri: str) -> None:
        try:
            self._archive = zipfile.ZipFile(open_uri(uri).open())
        except zipfile.BadZipFile as error:
            raise ValueError(f"{uri} is not a zip that can be read: {error}") from None
        names = [name for name in self._archive.namelist() if not name.endswith("/")]
        tops = {name.partition("/")[0] for name in names if not name.startswith("__MACOSX/")}
        self._prefix = f"{tops.pop()}/" if len(tops) == 1 and all("/" in name for name in names) else ""

    def read(self, name: str) -> bytes:
        try:
            return self._archive.read(self._prefix + name)
        except (zipfile.BadZipFile, zlib.error, EOFError):
            return b""  # damaged: counted as an image that cannot be decoded

    def open(self, name: str) -> IO[bytes]:
        return self._archive.open(self._prefix + name)

    def names(self) -> Iterator[str]:
        known = (name for name in self._archive.namelist() if not name.endswith("/"))
        return (name[len(self._prefix) :] for name in sorted(known) if name.startswith(self._prefix))


@functools.lru_cache(maxsize=4)
def open_files(uri: str) -> Files:
    """The files of a folder, prefix or zip; a process opens each once.

    Raises:
      ValueError: it ends in .zip and is none.
      StorageError: there is none, or storage does not answer.
    """
    return _Zip(uri) if uri.lower().endswith(".zip") else _Tree(uri)


def file_version(uri: str, name: str) -> str:
    """The version of a file of `open_files(uri)`, or of the zip that it is in."""
    place = open_uri(uri)
    return (place if uri.lower().endswith(".zip") else place.join(name)).version()


def has(files: Files, name: str) -> bool:
    """Whether there is such a file."""
    try:
        files.open(name).close()
    except KeyError:
        return False
    return True


def text_lines(files: Files, name: str, uri: str) -> Iterator[str]:
    """The lines of a UTF-8 file, with their ends; a mark at its beginning is dropped.

    Raises:
      ValueError: it is not UTF-8.
    """
    with files.open(name) as raw, io.TextIOWrapper(raw, "utf-8-sig", newline="") as lines:
        try:
            yield from lines
        except UnicodeDecodeError as error:
            raise ValueError(f"{uri}/{name} is not UTF-8: {error}") from None


def batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Tuples of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch
