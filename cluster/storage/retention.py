"""Which checkpoints of a run stay in storage; removal of what interrupted uploads and deletions leave behind."""

from __future__ import annotations

import math
import time

from cluster.storage.checkpoint_manifest import StoredCheckpoint
from cluster.storage.checkpoints import STEP_FOLDER, complete_checkpoints
from cluster.storage.location import Location, open_uri
from textscanner.checkpoint_files import CHECKPOINT_MANIFEST_NAME

NUM_NEWEST = 2  # the last one may be damaged, or of weights that have just diverged
# What is incomplete and younger may be an upload in progress of another process that uses the run's name.
ABANDONED_AFTER_S = 3600.0


def prune(run_uri: str, metric: str, keep: int) -> list[int]:
    """Deletes all checkpoints but the best `keep` by a metric (higher is better) and the NUM_NEWEST newest.

    Also deletes abandoned ones: folders without a manifest that are older than the newest checkpoint.

    Returns:
      the steps whose checkpoints were deleted.

    Raises:
      StorageError: storage refuses or does not answer; the next call deletes the rest.
    """
    ordered = complete_checkpoints(run_uri)
    best = sorted(ordered, key=lambda c: (c.metrics.get(metric, -math.inf), c.step), reverse=True)[:keep]
    removed = [checkpoint for checkpoint in ordered[:-NUM_NEWEST] if checkpoint not in best]
    for checkpoint in removed:
        folder = open_uri(checkpoint.uri)
        folder.join(CHECKPOINT_MANIFEST_NAME).delete()  # first: an interruption then leaves an incomplete checkpoint
        folder.delete_tree()
    for folder in _abandoned(open_uri(run_uri), ordered):
        folder.delete_tree()
    return [checkpoint.step for checkpoint in removed]


def _abandoned(root: Location, complete: list[StoredCheckpoint]) -> list[Location]:
    """Folders of steps before the newest checkpoint, without a manifest, and unchanged for ABANDONED_AFTER_S."""
    complete_steps = {checkpoint.step for checkpoint in complete}
    newest_step = max(complete_steps, default=0)
    oldest_s = time.time() - ABANDONED_AFTER_S
    folders = []
    for name, is_folder in root.names():
        match = STEP_FOLDER.fullmatch(name)
        if not is_folder or not match or int(match[1]) >= newest_step or int(match[1]) in complete_steps:
            continue
        folder = root.join(name)
        # A damaged manifest is left alone: somebody may want to look at it.
        if folder.changed_s() < oldest_s and not folder.join(CHECKPOINT_MANIFEST_NAME).exists():
            folders.append(folder)
    return folders
