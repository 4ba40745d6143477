"""Writes a run's metrics.jsonl, TensorBoard events, images and report into the run's folder. Rank 0 only.

On resuming, the lines after the restored step are dropped, because the run repeats those steps. Objects in a bucket
cannot be appended to: for a run in a bucket, the files are written to a local scratch folder, and `mirror` uploads the
changed ones. `mirror` may run in a thread other than the training loop's.
"""

from __future__ import annotations

import json
import pathlib
import threading
import time
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from cluster.storage.local_files import sync_file, write_atomically
from cluster.storage.location import open_uri
from cluster.storage.scratch import scratch_folder
from cluster.tracking.trackers import SafeTracker
from textscanner.evaluation.report import draw_report
from textscanner.evaluation.visualization import encode_png

METRICS_NAME = "metrics.jsonl"
TENSORBOARD_NAME = "tensorboard"
IMAGES_NAME = "pictures"
REPORT_NAME = "report.png"


class MetricsWriter:
    """Metrics and images of a run.

    Args:
      run_root: URI of the run's folder.
      start_step: step that the run resumes from; 0 discards existing metrics.
      tracker: receives the scalars too.
    """

    def __init__(self, run_root: str, start_step: int, tracker: SafeTracker | None = None) -> None:
        self._tracker = tracker
        self._remote = open_uri(run_root)
        self._is_local = self._remote.is_local
        self._folder = pathlib.Path(self._remote.path if self._is_local else scratch_folder("metrics"))
        self._mirror_lock = threading.Lock()
        # By the size at its last upload: each file either grows or is written once.
        self._uploaded_bytes: dict[pathlib.Path, int] = {}
        self._folder.mkdir(parents=True, exist_ok=True)
        self._metrics = self._folder / METRICS_NAME
        write_atomically(self._metrics, b"".join(line + b"\n" for line in self._lines_until(start_step)))
        self._summary_writer = tf.summary.create_file_writer(str(self._folder / TENSORBOARD_NAME))
        self._start_s = time.time()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a line to metrics.jsonl, and a point per value to TensorBoard and the tracker."""
        line = {"step": step, "time_s": round(time.time() - self._start_s, 1), **values}
        with self._metrics.open("a") as file:
            file.write(json.dumps(line) + "\n")
        with self._summary_writer.as_default(step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        if self._tracker:
            self._tracker.scalars(step, values)

    def image(self, step: int, image: np.ndarray) -> None:
        """Adds an RGB image, uint8 [H, W, 3], to TensorBoard and as a PNG file."""
        with self._summary_writer.as_default(step):
            tf.summary.image("validation words", image[None])
        path = self._folder / IMAGES_NAME / f"step_{step:08d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_png(image))

    def report(self, words: np.ndarray, title: str, *, case_sensitive: bool) -> None:
        """Writes report.png: the training curves above `words`, an RGB image of validation words, uint8 [H, W, 3]."""
        draw_report(self._metrics.read_text(), words, title, self._folder / REPORT_NAME, case_sensitive=case_sensitive)

    def flush(self) -> None:
        """Writes out what is buffered; the metrics then survive a power cut, like the checkpoint that follows."""
        self._summary_writer.flush()
        with self._metrics.open("ab") as file:
            sync_file(file)

    def mirror(self) -> None:
        """Uploads the files that have changed, if the run is in a bucket. Thread-safe.

        Raises:
          StorageError: storage refuses or does not answer.
        """
        if self._is_local:
            return
        with self._mirror_lock:
            for path in sorted(path for path in self._folder.rglob("*") if path.is_file()):
                data = path.read_bytes()
                if path == self._metrics:
                    data = data[: data.rfind(b"\n") + 1]  # the last line may be half written
                if self._uploaded_bytes.get(path) != len(data):
                    self._remote.join(path.relative_to(self._folder).as_posix()).write_bytes(data)
                    self._uploaded_bytes[path] = len(data)

    def close(self) -> None:
        """Flushes, mirrors and closes the writer and the tracker."""
        self.flush()
        self.mirror()
        self._summary_writer.close()
        if self._tracker:
            self._tracker.close()

    def _lines_until(self, step: int) -> list[bytes]:
        metrics = self._remote.join(METRICS_NAME)
        if step == 0 or not metrics.exists():
            return []
        return [line for line in metrics.read_bytes().split(b"\n") if _has_step_until(line, step)]


def _has_step_until(line: bytes, last_step: int) -> bool:
    """False also for a torn line: a process that is killed, or a full disk, leaves half of one."""
    try:
        return int(json.loads(line)["step"]) <= last_step
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
