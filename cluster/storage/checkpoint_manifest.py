"""The manifest of a checkpoint: its step, its metrics, and name, size and SHA-256 of each of its files.

Whoever can write to a bucket writes its manifests, and the names in them become paths on the disk of whoever pulls,
reads, evaluates or resumes. A `StoredFile` therefore checks itself: none exists whose name leaves its folder.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from cluster.errors import FileSizeError, NotFoundError
from cluster.storage.location import Location
from cluster.storage.manifest_values import is_count, is_sha256
from textscanner.checkpoint_files import CHECKPOINT_MANIFEST_NAME
from textscanner.errors import UserError

MAX_MANIFEST_BYTES = 1 << 20  # a real one has about 1 kB
MAX_FILES = 1000
MAX_FILE_BYTES = 1 << 40  # 1 TiB; bounds what a download may fill
MAX_STEP = 10**8 - 1  # the folder names of checkpoints have eight digits
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


@dataclasses.dataclass(frozen=True)
class StoredFile:
    """A file of a checkpoint, as its manifest describes it.

    Raises:
      UserError: the name is not a plain file name, or the size or the hash is impossible.
    """

    name: str
    num_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if (
            not isinstance(self.name, str)
            or not _FILE_NAME.fullmatch(self.name)
            or self.name == CHECKPOINT_MANIFEST_NAME
        ):
            raise UserError(f"the file name {self.name!r:.80} is not a plain one (letters, digits, '_', '-', '.')")
        if not is_count(self.num_bytes, MAX_FILE_BYTES):
            raise UserError(f"the size of {self.name} is {self.num_bytes!r:.80}: must be 0 to {MAX_FILE_BYTES:,} bytes")
        if not is_sha256(self.sha256):
            raise UserError(f"the hash of {self.name} is {self.sha256!r:.80}: must be a SHA-256 in hexadecimal")


@dataclasses.dataclass(frozen=True)
class StoredCheckpoint:
    """A complete checkpoint in storage.

    Attributes:
      metrics: of the validation at its step; empty if there was none.
    """

    uri: str
    step: int
    metrics: dict[str, float]
    files: tuple[StoredFile, ...]

    @property
    def num_bytes(self) -> int:
        """Total size of its files."""
        return sum(file.num_bytes for file in self.files)


def read_manifest(folder: Location) -> StoredCheckpoint | None:
    """The checkpoint in a folder; None if there is no manifest, because such a folder is not a checkpoint (yet).

    Raises:
      UserError: the manifest is damaged.
      StorageError: storage refuses or does not answer.
    """
    try:
        data = folder.join(CHECKPOINT_MANIFEST_NAME).read_at_most(MAX_MANIFEST_BYTES)
    except NotFoundError:
        return None
    except FileSizeError as error:
        raise UserError(f"{error}: the checkpoint is damaged, use another one") from None
    return parse_manifest(folder.uri, data)


def parse_manifest(uri: str, data: bytes) -> StoredCheckpoint:
    """The checkpoint of a folder's URI, from the content of its manifest.

    Raises:
      UserError: the manifest is damaged.
    """
    try:
        return _parse(uri, json.loads(data))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{uri}/{CHECKPOINT_MANIFEST_NAME} cannot be read ({reason}): the checkpoint is damaged, use another one"
        ) from None


def _parse(uri: str, manifest: dict[str, Any]) -> StoredCheckpoint:
    step, entries = manifest["step"], manifest["files"]
    if not is_count(step, MAX_STEP):
        raise UserError(f"step is {step!r:.80}: must be 0 to {MAX_STEP:,}")
    if not isinstance(entries, list) or len(entries) > MAX_FILES:
        raise UserError(f"files must be a list of at most {MAX_FILES}")
    files = tuple(StoredFile(**entry) for entry in entries)
    # On a case-insensitive disk, two names that differ in case are one file.
    if len({file.name.lower() for file in files}) != len(files):
        raise UserError("a file name occurs twice")
    return StoredCheckpoint(uri, step, _finite(manifest["metrics"]), files)


def _finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Without the values that are not finite: they have no order, and the best checkpoint is chosen by order."""
    values = {str(name): float(value) for name, value in dict(metrics).items()}
    return {name: value for name, value in values.items() if math.isfinite(value)}
