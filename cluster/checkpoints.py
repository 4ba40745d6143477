"""Which checkpoints a run's folder holds, and the one to use."""

from __future__ import annotations

import json

import pyarrow.fs

from cluster.storage import Location, open_uri
from textscanner.checkpoint import STATE_NAME


def best_checkpoint(run_root: str, metric: str = "val/word_accuracy") -> str:
    """The URI of the run's best checkpoint by a metric of its validation; the newest of equals.

    Raises:
      ValueError: the folder holds none.
    """
    root = open_uri(run_root)
    ranked = [(_metric(folder, metric), folder.uri) for folder in _folders(root)]
    if not ranked:
        raise ValueError(f"{run_root} holds no checkpoint (a folder with {STATE_NAME}): train first, or check --name")
    return max(ranked)[1]


def _folders(root: Location) -> list[Location]:
    selector = pyarrow.fs.FileSelector(root.path, allow_not_found=True)
    names = [i.base_name for i in root.filesystem.get_file_info(selector) if i.type == pyarrow.fs.FileType.Directory]
    return [folder for name in sorted(names) if (folder := root.join(name)).join(STATE_NAME).exists()]


def _metric(folder: Location, metric: str) -> float:
    return float(json.loads(folder.join(STATE_NAME).read_bytes())["metrics"].get(metric, -1.0))
