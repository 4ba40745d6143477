"""What a run writes down as it goes: metrics.jsonl, TensorBoard, pictures and a report, in the run's folder.

Rank 0 only. On resuming, lines past the restored step are dropped: the run takes those steps again. Objects cannot be
appended to: with a bucket the files are written to a scratch folder and what has changed is copied by `mirror`, which
may run beside the training.
"""

from __future__ import annotations

import json
import pathlib
import tempfile
import threading
import time

import numpy as np
import tensorflow as tf

from cluster.storage.location import open_uri
from cluster.tracking.trackers import SafeTracker
from textscanner.evaluation.report import draw_report
from textscanner.evaluation.visualization import encode_png

METRICS_NAME = "metrics.jsonl"
TENSORBOARD_NAME = "tensorboard"
REPORT_NAME = "report.png"


class MetricsWriter:
    """Scalars and pictures of a run, from step `start_step` on."""

    def __init__(self, run_root: str, start_step: int, tracker: SafeTracker | None = None) -> None:
        self._tracker = tracker
        self._remote = open_uri(run_root)
        local = self._remote.is_local
        self._folder = pathlib.Path(self._remote.path if local else tempfile.mkdtemp(prefix="journal-"))
        self._mirrored = not local
        self._mirroring = threading.Lock()
        self._copied: dict[pathlib.Path, int] = {}  # bytes; files only grow, or are written once
        self._folder.mkdir(parents=True, exist_ok=True)
        self._metrics = self._folder / METRICS_NAME
        self._metrics.write_text("".join(f"{line}\n" for line in self._earlier(start_step)))
        self._writer = tf.summary.create_file_writer(str(self._folder / TENSORBOARD_NAME))
        self._begin_s = time.time()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """A line in metrics.jsonl, and a point per value in TensorBoard and in the tracker."""
        line = {"step": step, "time_s": round(time.time() - self._begin_s, 1), **values}
        with self._metrics.open("a") as file:
            file.write(json.dumps(line) + "\n")
        with self._writer.as_default(step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        if self._tracker:
            self._tracker.scalars(step, values)

    def picture(self, step: int, image: np.ndarray) -> None:
        """An RGB picture, uint8 [H, W, 3], in TensorBoard and as pictures/step_*.png."""
        with self._writer.as_default(step):
            tf.summary.image("validation words", image[None])
        path = self._folder / "pictures" / f"step_{step:08d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_png(image))

    def report(self, words: np.ndarray, title: str) -> None:
        """report.png: the curves so far above a sheet of readings, uint8 [H, W, 3]."""
        draw_report(self._metrics.read_text(), words, title, self._folder / REPORT_NAME)

    def flush(self) -> None:
        """Everything so far is in the files when this returns."""
        self._writer.flush()

    def mirror(self) -> None:
        """Copies the files that have changed into the run's folder in a bucket; safe to call from another thread.

        Raises:
          StorageError: storage refuses or does not answer.
        """
        if not self._mirrored:
            return
        with self._mirroring:
            for path in sorted(p for p in self._folder.rglob("*") if p.is_file()):
                data = path.read_bytes()
                if path == self._metrics:
                    data = data[: data.rfind(b"\n") + 1]  # the last line may be half written
                if self._copied.get(path) != len(data):
                    self._remote.join(path.relative_to(self._folder).as_posix()).write_bytes(data)
                    self._copied[path] = len(data)

    def close(self) -> None:
        """Flushes, mirrors and ends."""
        self.flush()
        self.mirror()
        self._writer.close()
        if self._tracker:
            self._tracker.close()

    def _earlier(self, start_step: int) -> list[str]:
        location = self._remote.join(METRICS_NAME)
        if start_step == 0 or not location.exists():
            return []
        lines = location.read_bytes().decode().splitlines()
        return [line for line in lines if json.loads(line)["step"] <= start_step]
