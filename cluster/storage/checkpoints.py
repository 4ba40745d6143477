"""Checkpoints in storage: upload, list, select, verify and download.

A complete checkpoint folder holds `checkpoint_manifest.json` with step, metrics, and name, size and SHA-256 of each
file. The manifest is added on upload and kept by `pull`. It is uploaded last, with a put that fails if the object
exists, and deleted first. Every reader ignores a folder without it, so an interrupted upload or deletion is never
mistaken for a checkpoint.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterable
from typing import Literal

from cluster.errors import NotFoundError
from cluster.progress_bar import BYTES, progress_bar
from cluster.storage.checkpoint_manifest import MAX_MANIFEST_BYTES, StoredCheckpoint, StoredFile, read_manifest
from cluster.storage.local_files import sync_file, sync_folder, write_atomically
from cluster.storage.location import Location, absolute_uri, open_uri
from cluster.storage.private_folder import create_own
from cluster.storage.run_layout import SWEEP_NAME, trials_uri
from cluster.storage.scratch import scratch_folder
from textscanner.checkpoint_files import CHECKPOINT_MANIFEST_NAME, STATE_NAME, shipped_weights
from textscanner.config import BEST_METRIC
from textscanner.errors import UserError

STEP_FOLDER = re.compile(r"step_(\d{8})")
RANGE_BYTES = 8 << 20
PARALLEL_FILES = 4


def step_folder(step: int) -> str:
    """The folder name of a step's checkpoint."""
    return f"step_{step:08d}"


def upload(folder: str | os.PathLike[str], uri: str) -> None:
    """Uploads a local checkpoint folder, the manifest last. Files of an earlier upload of the step are overwritten.

    Raises:
      StorageError: storage refuses or does not answer.
    """
    source, target = pathlib.Path(folder), open_uri(uri)
    # First: the folder is incomplete until its files and its manifest are of one upload. The files are overwritten and
    # not deleted: another process that uses the run's name may be writing them.
    target.join(CHECKPOINT_MANIFEST_NAME).delete()
    state = json.loads((source / STATE_NAME).read_text())
    files = []
    for path in sorted(path for path in source.iterdir() if path.is_file()):
        data = path.read_bytes()
        target.join(path.name).write_bytes(data)
        files.append(StoredFile(path.name, len(data), hashlib.sha256(data).hexdigest()))
    manifest = {
        "step": state["step"],
        "metrics": state["metrics"],
        "files": [dataclasses.asdict(file) for file in files],
    }
    target.join(CHECKPOINT_MANIFEST_NAME).write_new(json.dumps(manifest, indent=2).encode())


def verify(folder: str | os.PathLike[str]) -> None:
    """Compares the files of a local checkpoint with its manifest.

    Raises:
      UserError: the manifest is damaged, a file is missing, or its SHA-256 differs.
    """
    root = pathlib.Path(folder)
    for file in _manifest_of(str(root)).files:
        if not _matches(root / file.name, file):
            raise UserError(
                f"{root / file.name} is missing or differs from {CHECKPOINT_MANIFEST_NAME}: "
                "the checkpoint is damaged, use another one"
            )


def complete_checkpoints(run_uri: str) -> list[StoredCheckpoint]:
    """The complete checkpoints in a run's folder, by step; empty if there is none. Damaged manifests are left out."""
    return _scan(run_uri)[0]


def _scan(run_uri: str) -> tuple[list[StoredCheckpoint], list[str]]:
    """The complete checkpoints in a run's folder, by step, and an error message for each damaged manifest."""
    root = open_uri(run_uri)
    checkpoints, damaged = [], []
    for name, is_folder in root.names():
        if not is_folder or not STEP_FOLDER.fullmatch(name):
            continue
        try:
            checkpoint = read_manifest(root.join(name))
        except UserError as error:
            damaged.append(str(error))
        else:
            checkpoints += [checkpoint] if checkpoint else []
    return checkpoints, damaged


def latest_valid(run_uri: str) -> tuple[tuple[StoredCheckpoint, str] | None, list[str]]:
    """The newest checkpoint whose hashes are correct. A damaged one is skipped: resuming from the one before it repeats
    some steps, failing would lose the run.

    Returns:
      the checkpoint and a local folder with its files, or None; and an error message for each damaged newer checkpoint
      and each damaged manifest.

    Raises:
      StorageError: storage refuses or does not answer. That is no damage: skipping checkpoints would repeat the run.
    """
    checkpoints, damaged = _scan(run_uri)
    for checkpoint in reversed(checkpoints):
        try:
            folder = fetch_checkpoint(checkpoint.uri)
            verify(folder)
        except UserError as error:
            damaged.append(str(error))
        else:
            return (checkpoint, folder), damaged
    return None, damaged


def list_checkpoints(run_uri: str) -> list[StoredCheckpoint]:
    """The complete checkpoints in a run's folder, by step; in a sweep's folder, those of all its trials.

    Raises:
      UserError: there is none.
    """
    root = open_uri(run_uri)
    if root.join(SWEEP_NAME).exists():
        trials = trials_uri(run_uri)
        runs = [f"{trials}/{name}" for name, is_folder in open_uri(trials).names() if is_folder]
    else:
        runs = [run_uri]
    scans = [_scan(run) for run in runs]
    checkpoints = [checkpoint for complete, _ in scans for checkpoint in complete]
    if not checkpoints:
        content = ", ".join(name for name, _ in root.names()[:8]) or "nothing"
        damaged = "".join(f"\n  {message}" for _, messages in scans for message in messages)
        raise UserError(
            f"{run_uri} holds no complete checkpoint; it holds {content}. Check the URI and the run's name{damaged}"
        )
    return checkpoints


def select_checkpoint(
    checkpoints: Iterable[StoredCheckpoint],
    metric: str = BEST_METRIC,
    mode: Literal["max", "min"] = "max",
    step: int | None = None,
    last: bool = False,
) -> StoredCheckpoint:
    """The checkpoint of a step, the last one, or the best one by a metric.

    Args:
      checkpoints: at least one.
      metric: name of the validation metric. Of equally good checkpoints the newest is selected; if no checkpoint has
        any metrics, the last.
      mode: whether a high (`max`) or a low value of the metric is better.
      step: selects by step instead.
      last: selects the newest instead.

    Raises:
      UserError: no checkpoint has that step or metric.
    """
    ordered = sorted(checkpoints, key=lambda checkpoint: checkpoint.step)
    if step is not None:
        for checkpoint in ordered:
            if checkpoint.step == step:
                return checkpoint
        raise UserError(f"step is {step}: the run has steps {', '.join(str(c.step) for c in ordered)}")
    if last or not any(checkpoint.metrics for checkpoint in ordered):
        return ordered[-1]
    scored = [checkpoint for checkpoint in ordered if metric in checkpoint.metrics]
    if not scored:
        names = sorted({name for checkpoint in ordered for name in checkpoint.metrics})
        raise UserError(f"metric is {metric!r}: no checkpoint has it; available: {', '.join(names)}")
    sign = 1 if mode == "max" else -1
    return max(scored, key=lambda checkpoint: (sign * checkpoint.metrics[metric], checkpoint.step))


def best_checkpoint(run_uri: str) -> str:
    """The URI of a run's best checkpoint by `BEST_METRIC`.

    Raises:
      UserError: as `list_checkpoints`.
    """
    return select_checkpoint(list_checkpoints(run_uri)).uri


def pull(checkpoint: StoredCheckpoint, folder: str | os.PathLike[str], quiet: bool = False) -> pathlib.Path:
    """Downloads a checkpoint, several files in parallel, resuming an interrupted download.

    The folder appears under its name once every hash has been verified; until then it is `.NAME.partial`.

    Raises:
      UserError: the folder exists and is not this checkpoint, or a hash differs.
      StorageError: storage refuses or does not answer.
    """
    target = pathlib.Path(folder).expanduser().absolute()
    if target.exists():
        if all(_matches(target / file.name, file) for file in checkpoint.files):
            return target
        raise UserError(f"{target} exists and is not {checkpoint.uri}: choose another folder, or remove it")
    partial = target.with_name(f".{target.name}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    if not create_own(partial):
        raise UserError(f"{partial} is not a folder of yours: another user may have planted it; remove it")
    source = open_uri(checkpoint.uri)
    with (
        progress_bar(target.name, checkpoint.num_bytes, BYTES, disable=quiet) as advance,
        concurrent.futures.ThreadPoolExecutor(PARALLEL_FILES) as pool,
    ):
        for download in [pool.submit(_download, source, partial, file, advance) for file in checkpoint.files]:
            download.result()
    manifest = source.join(CHECKPOINT_MANIFEST_NAME).read_at_most(MAX_MANIFEST_BYTES)
    write_atomically(partial / CHECKPOINT_MANIFEST_NAME, manifest)
    verify(partial)
    partial.rename(target)
    sync_folder(target.parent)
    return target


def fetch_checkpoint(uri: str) -> str:
    """A local folder with a checkpoint, downloaded for the life of this process if it is in a bucket.

    Args:
      uri: of a checkpoint, of a run or sweep (its best checkpoint), or the name of bundled weights.

    Raises:
      UserError: there is no checkpoint.
    """
    if uri in shipped_weights():
        return shipped_weights()[uri]
    location = open_uri(uri)
    # A local checkpoint needs no manifest. A path that does not exist is returned too: the caller's message names it.
    if location.is_local and (location.join(STATE_NAME).exists() or not location.exists()):
        return uri
    checkpoint = read_manifest(location) or select_checkpoint(list_checkpoints(absolute_uri(uri)))
    if location.is_local:
        return checkpoint.uri
    return str(pull(checkpoint, _download_folder() / hashlib.sha256(checkpoint.uri.encode()).hexdigest()[:16]))


@functools.cache
def _download_folder() -> pathlib.Path:
    return scratch_folder("fetched")


def _download(source: Location, folder: pathlib.Path, file: StoredFile, advance: Callable[[int], None]) -> None:
    _check_size(source, file)
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
        sync_file(out)
    if not _matches(path, file):
        path.unlink()
        raise UserError(
            f"{source.uri}/{file.name} does not have the SHA-256 of the manifest: pull again for a fresh copy"
        )


def _check_size(source: Location, file: StoredFile) -> None:
    """Before a download of gigabytes; a file that is missing or short is damage, not a failure of storage."""
    try:
        size = source.join(file.name).size()
    except NotFoundError:
        size = -1
    if size != file.num_bytes:
        problem = "does not exist" if size < 0 else f"has {size:,} bytes, the manifest says {file.num_bytes:,}"
        raise UserError(f"{source.uri}/{file.name} {problem}: the checkpoint is damaged, use another one")


def _manifest_of(folder: str) -> StoredCheckpoint:
    """The checkpoint in a local folder that must have a manifest."""
    checkpoint = read_manifest(open_uri(folder))
    if checkpoint is None:
        raise UserError(f"{folder} has no {CHECKPOINT_MANIFEST_NAME}: the checkpoint is damaged, use another one")
    return checkpoint


def _matches(path: pathlib.Path, file: StoredFile) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
