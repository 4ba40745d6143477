"""Checkpoints in storage: upload, list, select, verify, prune and download.

A complete checkpoint folder holds `checkpoint_manifest.json` with the names, sizes and SHA-256 hashes of its files. The
manifest is uploaded last, with a put that fails if the object exists, and deleted first. Every reader ignores a folder
without it, so an interrupted upload or deletion is never mistaken for a checkpoint.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import math
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from typing import Any, Literal

from cluster.progress_bar import BYTES, progress_bar
from cluster.storage.location import Location, abort_uploads, absolute_uri, open_uri
from cluster.storage.run_layout import SWEEP_NAME, trials_uri
from textscanner.checkpoint_files import CHECKPOINT_MANIFEST_NAME, STATE_NAME, shipped_weights
from textscanner.config import BEST_METRIC

STEP_FOLDER = re.compile(r"step_(\d{8})")
RANGE_BYTES = 8 << 20
PARALLEL_FILES = 4


@dataclasses.dataclass(frozen=True)
class StoredFile:
    """A file of a checkpoint."""

    name: str
    num_bytes: int
    sha256: str


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
        """Over all files."""
        return sum(file.num_bytes for file in self.files)


def step_folder(step: int) -> str:
    """The folder name of a step's checkpoint."""
    return f"step_{step:08d}"


def upload(folder: str | os.PathLike[str], uri: str) -> None:
    """Puts a local checkpoint folder into storage, the manifest last; remains of an earlier try are removed first.

    Raises:
      StorageError: storage refuses or does not answer.
    """
    source, target = pathlib.Path(folder), open_uri(uri)
    if target.names():
        target.delete_tree()
    abort_uploads(target)
    state = json.loads((source / STATE_NAME).read_text())
    files = []
    for path in sorted(p for p in source.iterdir() if p.is_file()):
        data = path.read_bytes()
        target.join(path.name).write_bytes(data)
        files.append(StoredFile(path.name, len(data), hashlib.sha256(data).hexdigest()))
    told = {
        "step": state["step"],
        "metrics": state["metrics"],
        "files": [dataclasses.asdict(file) for file in files],
    }
    target.join(CHECKPOINT_MANIFEST_NAME).write_new(json.dumps(told, indent=2).encode())


def verify(folder: str | os.PathLike[str]) -> None:
    """Compares a local copy with its manifest.

    Raises:
      ValueError: a file is missing or differs.
    """
    root = pathlib.Path(folder)
    for file in _parse(str(root), (root / CHECKPOINT_MANIFEST_NAME).read_bytes()).files:
        path = root / file.name
        if not path.exists() or _sha256(path) != file.sha256:
            raise ValueError(
                f"{path} is missing or not what {CHECKPOINT_MANIFEST_NAME} says: the checkpoint is damaged"
            )


def complete_checkpoints(run_uri: str) -> list[StoredCheckpoint]:
    """The complete checkpoints of a run's folder by step; none of a folder that holds none."""
    root = open_uri(run_uri)
    names = [name for name, is_folder in root.names() if is_folder and STEP_FOLDER.fullmatch(name)]
    return [checkpoint for name in names if (checkpoint := _read(root.join(name)))]


def latest_valid(run_uri: str) -> tuple[tuple[StoredCheckpoint, str] | None, list[str]]:
    """The newest checkpoint whose hashes fit, with a local folder of it; and what is wrong with newer ones.

    A damaged checkpoint is passed over: the one before it costs some steps, a failed run costs all.
    """
    damaged: list[str] = []
    for checkpoint in reversed(complete_checkpoints(run_uri)):
        try:
            folder = fetch_checkpoint(checkpoint.uri)
            verify(folder)
        except ValueError as error:
            damaged.append(str(error))
        else:
            return (checkpoint, folder), damaged
    return None, damaged


def prune(run_uri: str, metric: str, keep: int) -> list[int]:
    """Removes all checkpoints but the best `keep` by a metric (most is best) and the last, their manifests first.

    Returns:
      the steps that were removed.
    """
    ordered = complete_checkpoints(run_uri)
    best = sorted(ordered, key=lambda c: (c.metrics.get(metric, -math.inf), c.step), reverse=True)[:keep]
    removed = [checkpoint for checkpoint in ordered[:-1] if checkpoint not in best]
    for checkpoint in removed:
        place = open_uri(checkpoint.uri)
        place.join(CHECKPOINT_MANIFEST_NAME).delete()
        place.delete_tree()
    return [checkpoint.step for checkpoint in removed]


def list_checkpoints(run_uri: str) -> list[StoredCheckpoint]:
    """The complete checkpoints of a run's folder by step; of a sweep's folder, those of all its trials.

    Raises:
      ValueError: the folder holds none.
    """
    root = open_uri(run_uri)
    if root.join(SWEEP_NAME).exists():
        trials = trials_uri(run_uri.rstrip("/"))
        runs = [f"{trials}/{name}" for name, is_folder in open_uri(trials).names() if is_folder]
        found = [checkpoint for run in runs for checkpoint in complete_checkpoints(run)]
    else:
        found = complete_checkpoints(run_uri)
    if not found:
        there = ", ".join(name for name, _ in root.names()[:8]) or "nothing"
        raise ValueError(f"{run_uri} holds no complete checkpoint; there is {there}. Check the URI and --name")
    return found


def select_checkpoint(
    found: Iterable[StoredCheckpoint],
    metric: str = BEST_METRIC,
    mode: Literal["max", "min"] = "max",
    step: int | None = None,
    last: bool = False,
) -> StoredCheckpoint:
    """The checkpoint of a step, the last, or the best by a metric (the newest of equals; the last if none has metrics).

    Raises:
      ValueError: there is none of that step, or none has that metric.
    """
    ordered = sorted(found, key=lambda checkpoint: checkpoint.step)
    if step is not None:
        for checkpoint in ordered:
            if checkpoint.step == step:
                return checkpoint
        raise ValueError(f"--step is {step}: there are steps {', '.join(str(c.step) for c in ordered)}")
    if last or not any(checkpoint.metrics for checkpoint in ordered):
        return ordered[-1]
    scored = [checkpoint for checkpoint in ordered if metric in checkpoint.metrics]
    if not scored:
        known = sorted({name for checkpoint in ordered for name in checkpoint.metrics})
        raise ValueError(f"--metric is {metric!r}: no checkpoint has it; there are {', '.join(known)}")
    sign = 1 if mode == "max" else -1
    return max(scored, key=lambda checkpoint: (sign * checkpoint.metrics[metric], checkpoint.step))


def best_checkpoint(run_uri: str) -> str:
    """The URI of a run's best checkpoint.

    Raises:
      ValueError: as `list_checkpoints`.
    """
    return select_checkpoint(list_checkpoints(run_uri)).uri


def pull(checkpoint: StoredCheckpoint, folder: str | os.PathLike[str], quiet: bool = False) -> pathlib.Path:
    """Downloads a checkpoint, several files at once, and goes on where an earlier try broke off.

    The folder appears under its name only when every hash has been compared; until then it is `.NAME.partial`.

    Raises:
      ValueError: something else is at `folder`, or a hash differs.
      StorageError: storage refuses or does not answer.
    """
    target = pathlib.Path(folder).expanduser().absolute()
    if target.exists():
        if _holds(target, checkpoint):
            return target
        raise ValueError(f"{target} exists and is not {checkpoint.uri}: give another --to, or remove it")
    partial = target.with_name(f".{target.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    source = open_uri(checkpoint.uri)
    with (
        progress_bar(target.name, checkpoint.num_bytes, BYTES, disable=quiet) as advance,
        concurrent.futures.ThreadPoolExecutor(PARALLEL_FILES) as pool,
    ):
        for done in [pool.submit(_pull_file, source, partial, file, advance) for file in checkpoint.files]:
            done.result()
    (partial / CHECKPOINT_MANIFEST_NAME).write_bytes(source.join(CHECKPOINT_MANIFEST_NAME).read_bytes())
    verify(partial)
    partial.rename(target)
    return target


def fetch_checkpoint(uri: str) -> str:
    """A local folder with the checkpoint of a URI: the folder itself, a run's best checkpoint, or a copy from storage.

    A name of weights that the package brings is a URI too.

    Raises:
      ValueError: there is no checkpoint.
    """
    if uri in shipped_weights():
        return shipped_weights()[uri]
    place = open_uri(uri)
    if place.is_local and (place.join(STATE_NAME).exists() or not place.exists()):
        return uri
    found = _read(place) or select_checkpoint(list_checkpoints(absolute_uri(uri)))
    if place.is_local:
        return found.uri
    return str(pull(found, _scratch() / hashlib.sha256(found.uri.encode()).hexdigest()[:16]))


@functools.cache
def _scratch() -> pathlib.Path:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="textscanner-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _pull_file(source: Location, folder: pathlib.Path, file: StoredFile, advance: Callable[[int], None]) -> None:
    path = folder / file.name
    start = path.stat().st_size if path.exists() else 0
    if start > file.num_bytes:
        path.unlink()
        start = 0
    advance(start)
    with path.open("ab") as out:
        while start < file.num_bytes:
            data = source.join(file.name).read_bytes(start, min(start + RANGE_BYTES, file.num_bytes))
            out.write(data)
            advance(len(data))
            start += len(data)
    if _sha256(path) != file.sha256:
        path.unlink()
        raise ValueError(f"{source.uri}/{file.name}: not the manifest's SHA-256; the next try downloads it anew")


def _read(folder: Location) -> StoredCheckpoint | None:
    manifest = folder.join(CHECKPOINT_MANIFEST_NAME)
    return _parse(folder.uri, manifest.read_bytes()) if manifest.exists() else None


def _parse(uri: str, data: bytes) -> StoredCheckpoint:
    try:
        told: dict[str, Any] = json.loads(data)
        files = tuple(StoredFile(**file) for file in told["files"])
        return StoredCheckpoint(uri, int(told["step"]), dict(told["metrics"]), files)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{uri}/{CHECKPOINT_MANIFEST_NAME} cannot be read ({error}): the checkpoint is damaged"
        ) from None


def _holds(folder: pathlib.Path, checkpoint: StoredCheckpoint) -> bool:
    return all((folder / f.name).exists() and _sha256(folder / f.name) == f.sha256 for f in checkpoint.files)


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
