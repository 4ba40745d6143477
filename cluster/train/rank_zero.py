"""Outputs that only rank 0 writes: metrics, images, messages to the driver, checkpoints in storage.

All ranks hold identical weights, so one of them writes for all. `RankZeroOutputs` exists on rank 0 only.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import ray.train

from cluster.config import RunSpec
from cluster.data.ingest import dataset_names
from cluster.data.shards import read_records
from cluster.errors import StorageError
from cluster.storage.checkpoints import upload
from cluster.storage.location import open_uri
from cluster.storage.retention import prune
from cluster.storage.s3_retries import announce_with
from cluster.storage.scratch import scratch_folder
from cluster.tracking.metrics_writer import MetricsWriter
from cluster.tracking.prometheus import RunMetrics
from cluster.tracking.trackers import open_tracker
from cluster.train.progress import Progress, notify
from textscanner import checkpoint
from textscanner.checkpoint import CheckpointMeta
from textscanner.config import BEST_METRIC, WORD_ACCURACY
from textscanner.data.images import decode
from textscanner.evaluation.visualization import draw_maps, sheet
from textscanner.inference.reader import Reader
from textscanner.training.step import TrainingState

IMAGE_WORDS = 9
REPORT_WORDS = 32
SIGN_INTERVAL_S = 5.0
MAX_PENDING_UPLOADS = 2  # one is being uploaded, one waits; each takes the size of a checkpoint on the node's disk


class RankZeroOutputs:
    """Writes the outputs of a run.

    Args:
      run_root: URI of the run's folder.
      progress_actor: handle of the driver's `ProgressActor`.
      start_step: the step that the run resumed from; 0 for a new run.
    """

    def __init__(self, spec: RunSpec, run_root: str, progress_actor: Any, start_step: int) -> None:
        self._config, self._keep_checkpoints = spec.config, spec.runtime.train.keep_checkpoints
        self._run_root, self._progress_actor = run_root, progress_actor
        self._progress: Progress = {"step": start_step}
        self._last_sign_s = 0.0
        self._pending_steps: set[int] = set()  # of checkpoints that have been saved and not uploaded
        self._upload_ended = threading.Condition()
        notify(progress_actor.set_progress, self._progress)
        announce_with(self.send_message)  # storage that does not answer is to be seen on the driver
        self._writer = MetricsWriter(run_root, start_step, open_tracker(run_root, spec, self.send_message))
        self._run_metrics = RunMetrics(run_root.rpartition("/")[2], resumed=start_step > 0)

    def send_message(self, message: str) -> None:
        """Prints a line on the driver; does not wait for it."""
        notify(self._progress_actor.add_message, message)

    def log_step(self, step: int, metrics: Mapping[str, float], learning_rate: float) -> None:
        scalars = {f"train/{name}": value for name, value in metrics.items()}
        self._writer.scalars(step, scalars | {"train/learning_rate": learning_rate})
        self._run_metrics.progress(step, metrics)
        self._progress = {**metrics, "step": step, "global_batch_size": self._config.train.global_batch_size}
        notify(self._progress_actor.set_progress, self._progress)

    def validating(self, num_rows: int) -> None:
        """Shows the driver that the run has not stalled: `num_rows` of a validation are done."""
        if time.monotonic() - self._last_sign_s >= SIGN_INTERVAL_S:
            self._last_sign_s = time.monotonic()
            notify(self._progress_actor.set_progress, self._progress | {"validated": num_rows})

    def _wait_for_upload(self, step: int) -> None:
        """Waits until fewer than MAX_PENDING_UPLOADS are pending, and adds this step's."""
        begin_s = time.monotonic()
        with self._upload_ended:
            while len(self._pending_steps) >= MAX_PENDING_UPLOADS:
                waited_s = time.monotonic() - begin_s  # the deadline of each request ends an upload that hangs
                notify(self._progress_actor.set_progress, self._progress | {"waited_s": waited_s})
                if not self._upload_ended.wait(SIGN_INTERVAL_S) and waited_s < SIGN_INTERVAL_S:
                    self.send_message(f"step {step} waits: checkpoints are uploaded more slowly than they are saved")
            self._pending_steps.add(step)

    def log_validation(self, step: int, metrics: dict[str, float]) -> None:
        self._writer.scalars(step, metrics)
        self._run_metrics.validated(metrics)
        names = dataset_names(self._config.data.val)
        per_set = "  ".join(f"{name} {metrics[f'val/{name}/{WORD_ACCURACY}']:.1%}" for name in names)
        self.send_message(f"step {step}: word accuracy {metrics[BEST_METRIC]:.1%}  ({per_set})")

    def write_image(self, step: int, reader: Reader) -> None:
        """Draws the predicted maps and the readings of a few validation words."""
        texts, images = _first_words(self._config.data.val, IMAGE_WORDS)
        drawn = draw_maps(reader.maps(images), texts, reader.read(images), self._config.charset)
        self._writer.image(step, drawn)

    def save(self, state: TrainingState, meta: CheckpointMeta) -> ray.train.Checkpoint:
        """Writes a checkpoint into a temporary folder of this node, which Ray deletes after the upload.

        Waits if too many checkpoints are still to be uploaded: with slow storage they would fill the disk.
        """
        self._wait_for_upload(meta.step)
        folder = scratch_folder("checkpoint")
        checkpoint.save(folder, state, meta)
        self._writer.flush()
        return ray.train.Checkpoint.from_directory(folder)

    def upload(self, metrics: dict[str, float], local: ray.train.Checkpoint, folder_name: str) -> ray.train.Checkpoint:
        """Uploads a saved checkpoint to storage; Ray Train calls it in a background thread, beside the next steps.

        Metrics go first: a run that resumes from this checkpoint finds the metrics up to its step. The checkpoint's
        manifest goes last, and makes it complete. Ray keeps every checkpoint reported to it; retention is ours.

        Args:
          metrics: `step`, and those of the validation at that step if there was one.
        """
        begin_s = time.monotonic()
        target = open_uri(self._run_root).join(folder_name)
        try:
            self._writer.mirror()
            upload(local.path, target.uri)
        finally:
            with self._upload_ended:
                self._pending_steps.discard(int(metrics["step"]))
                self._upload_ended.notify_all()
        self._run_metrics.saved(time.monotonic() - begin_s)
        try:
            prune(self._run_root, self._config.train.best_metric, self._keep_checkpoints)
        except StorageError as error:  # tried again after the next checkpoint
            self.send_message(f"old checkpoints were not removed: {error}")
        # Waits for the driver: it should know of the checkpoint before this process may end.
        notify(self._progress_actor.add_checkpoint, metrics | {"checkpoint": target.uri}, wait=True)
        return ray.train.Checkpoint(path=target.path, filesystem=target.filesystem)

    def close(self, reader: Reader, meta: CheckpointMeta) -> None:
        """Draws the report of the finished run, if there is validation data, and writes out what is buffered."""
        if self._config.data.val:
            texts, images = _first_words(self._config.data.val, REPORT_WORDS)
            accuracy = meta.metrics.get(BEST_METRIC, 0.0)
            title = f"{self._config.preset}: {accuracy:.1%} of validation words read at step {meta.step:,}"
            words = sheet(images, texts, reader.read(images))
            self._writer.report(words, title, case_sensitive=self._config.charset.case_sensitive)
        self._writer.close()


def _first_words(uris: tuple[str, ...], count: int) -> tuple[list[str], list[np.ndarray]]:
    """Texts and RGB images (uint8 [H, W, 3]) of the first words of each data set, `count` in all."""
    words_per_set = -(-count // len(uris))
    records = [record for uri in uris for record in itertools.islice(read_records(uri), words_per_set)][:count]
    return [record.text for record in records], [decode(record.image, record.source) for record in records]
