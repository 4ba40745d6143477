"""The one file that joins Ray Train and the training loop: what each worker process runs.

Every rank takes the same steps and reports equally often; rank 0 also writes checkpoints, the journal and the pictures.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import tempfile
import time
from typing import Any

import numpy as np
import ray
import ray.train
import tensorflow as tf
from ray.train import CheckpointUploadMode
from ray.train.collective import broadcast_from_rank_zero

from cluster.config import RunSpec, WorkerConfig
from cluster.data.ingest import dataset_names, evaluation_rows, training_sampler, worker_batches
from cluster.data.shards import Manifest, read_manifest, read_records
from cluster.data.tf_input import TfInput
from cluster.errors import StorageError
from cluster.storage.checkpoints import (
    StoredCheckpoint,
    fetch_checkpoint,
    latest_valid,
    prune,
    step_folder,
    upload,
    verify,
)
from cluster.storage.location import abort_uploads, open_uri
from cluster.tracking.metrics_writer import MetricsWriter
from cluster.tracking.prometheus import RunMetrics
from cluster.tracking.trackers import open_tracker
from cluster.train.strategy import make_strategy, sum_over_workers
from textscanner import checkpoint
from textscanner.config import BEST_METRIC
from textscanner.data.images import decode
from textscanner.evaluation.calibration import Calibration
from textscanner.evaluation.visualization import sheet, validation_picture
from textscanner.inference.decode import DEFAULT_THRESHOLD
from textscanner.inference.postprocess import READ_BATCH
from textscanner.inference.reader import Reader
from textscanner.training.loop import TrainEvent, training_loop
from textscanner.training.step import TrainingState, create_state, make_train_step

PICTURE_WORDS = 9
REPORT_WORDS = 32


@dataclasses.dataclass(frozen=True)
class WorkerSettings:
    """What the driver hands to each worker.

    Attributes:
      spec: the run spec, as a dict.
      run_root: URI of the run's folder.
      board: actor handle of the driver's progress board.
    """

    spec: dict[str, Any]
    run_root: str
    board: Any


def train_worker(settings: dict[str, Any]) -> None:
    """Trains. The order of resuming is fixed, and a test holds it:

    1. strategy, before any other TensorFlow operation
    2. model and optimizer, fresh, the same on every rank
    3. the newest checkpoint into both, on every rank
    4. the data's plan, entered at the restored step
    5. the first step
    """
    given = WorkerSettings(**settings)
    spec = RunSpec.from_dict(given.spec)
    config = spec.config
    context = ray.train.get_context()
    strategy = make_strategy(_with_threads(spec.runtime.train, context.get_local_world_size()))
    state = create_state(config, strategy)
    rank, world = context.get_world_rank(), context.get_world_size()
    saved = _restore(state, given, rank)
    plan = training_sampler(config)
    worker = _Worker(spec, state, given, rank, world, saved)
    steps = config.train.num_steps - saved.step
    tf_input = TfInput(spec, worker_batches(spec, plan, rank, world, saved.step, steps), strategy)
    for pause in training_loop(make_train_step(state), tf_input, saved.step, config.train):
        worker.handle(pause)
    worker.close()


def _with_threads(train: WorkerConfig, local_world_size: int) -> WorkerConfig:
    """The train config with its threads filled in: on CPUs, the node's cores shared by its workers."""
    if train.threads_per_worker or train.gpus_per_worker:
        return train
    return dataclasses.replace(train, threads_per_worker=max(1, (os.cpu_count() or 1) // local_world_size))


def _restore(state: TrainingState, given: WorkerSettings, rank: int) -> checkpoint.CheckpointMeta:
    """The newest whole checkpoint in storage, which rank 0 chooses: Ray's own record may lag behind an upload."""
    found = _newest(given) if rank == 0 else None
    uri = broadcast_from_rank_zero(found[0].uri if found else "")
    if not uri:
        return _fresh(state, given, rank)
    if found:
        return checkpoint.restore(found[1], state)
    folder = fetch_checkpoint(uri)
    verify(folder)
    return checkpoint.restore(folder, state)


def _fresh(state: TrainingState, given: WorkerSettings, rank: int) -> checkpoint.CheckpointMeta:
    """A new run: random weights, or those of `train.init`."""
    start = state.config.train.init
    if start:
        apart = checkpoint.initialize(fetch_checkpoint(start), state)
        if rank == 0:
            kept = f"; begun anew: {', '.join(apart)}" if apart else ""
            ray.get(given.board.say.remote(f"started with the weights of {start}{kept}"))
    return checkpoint.CheckpointMeta(0, DEFAULT_THRESHOLD, {})


def _newest(given: WorkerSettings) -> tuple[StoredCheckpoint, str] | None:
    abort_uploads(open_uri(given.run_root))  # of an attempt that was killed
    found, damaged = latest_valid(given.run_root)
    for told in damaged:
        ray.get(given.board.say.remote(f"a checkpoint is left out: {told}"))
    return found


class _Worker:
    """Acts on the loop's pauses."""

    def __init__(
        self,
        spec: RunSpec,
        state: TrainingState,
        settings: WorkerSettings,
        rank: int,
        world: int,
        saved: checkpoint.CheckpointMeta,
    ) -> None:
        self._spec, self._state, self._config = spec, state, state.config
        self._rank, self._world = rank, world
        self._board, self._run_root = settings.board, settings.run_root
        self._saved = saved
        self._reader = Reader(self._config, state.serving, saved.step, saved.metrics, saved.threshold)
        self._manifests: list[Manifest] = [read_manifest(uri) for uri in self._config.data.val]
        self._journal: MetricsWriter | None = None
        if rank == 0:
            self._journal = MetricsWriter(
                settings.run_root, saved.step, open_tracker(settings.run_root, self._spec, self._say)
            )
            self._gauges = RunMetrics(settings.run_root.rpartition("/")[2], resumed=saved.step > 0)
            if saved.step:
                self._say(f"resumed at step {saved.step}")

    def handle(self, pause: TrainEvent) -> None:
        """Everything that is due, validation before saving so that the checkpoint carries its figures."""
        if pause.metrics is not None and self._journal:
            rate = float(self._state.optimizer.learning_rate.numpy())
            logged = {f"train/{k}": v for k, v in pause.metrics.items()} | {"train/learning_rate": rate}
            self._journal.scalars(pause.step, logged)
            self._gauges.progress(pause.step, pause.metrics)
            progress = pause.metrics | {"step": pause.step, "global_batch_size": self._config.train.global_batch_size}
            self._board.post.remote(progress)
        if pause.validate or pause.save or pause.picture:
            self._state.sync_ema()
        validated = {}
        if pause.validate and self._manifests:
            validated = self._validate(pause.step)
        if pause.picture and self._journal and self._manifests:
            self._journal.picture(pause.step, self._draw())
        if pause.save:
            self._save(pause.step, validated)

    def close(self) -> None:
        """Draws the report and writes out what is buffered."""
        if self._journal:
            if self._manifests:
                self._report(self._journal)
            self._journal.close()

    def _validate(self, step: int) -> dict[str, float]:
        """Scores whole validation sets over all workers and calibrates the threshold on them."""
        names = dataset_names(self._config.data.val)
        calibration = Calibration(len(names))
        shares = evaluation_rows(self._spec, self._config.data.val, self._manifests, self._rank, self._world)
        for dataset, rows in shares:
            for start in range(0, len(rows["length"]), READ_BATCH):
                part = slice(start, start + READ_BATCH)
                decoded = self._reader.decode_batch(rows["image"][part])
                calibration.add(dataset, rows["text"][part].tolist(), decoded, self._config.charset)
        total = sum_over_workers(self._state.strategy, tf.constant(calibration.as_vector()))
        merged = calibration.with_vector(np.asarray(total))
        threshold, metrics = merged.best(names)
        self._saved = checkpoint.CheckpointMeta(step, threshold, metrics)
        self._reader.threshold = threshold
        if self._journal:
            self._journal.scalars(step, metrics)
            self._gauges.validated(metrics)
            sets = "  ".join(f"{name} {metrics[f'val/{name}/word_accuracy']:.1%}" for name in names)
            self._say(f"step {step}: word accuracy {metrics[BEST_METRIC]:.1%}  ({sets})")
        return metrics

    def _draw(self) -> np.ndarray:
        texts, images = _first_words(self._config.data.val, PICTURE_WORDS)
        return validation_picture(self._reader.maps(images), texts, self._reader.read(images), self._config.charset)

    def _report(self, journal: MetricsWriter) -> None:
        texts, images = _first_words(self._config.data.val, REPORT_WORDS)
        accuracy = self._saved.metrics.get(BEST_METRIC, 0.0)
        title = f"{self._config.preset}: {accuracy:.1%} of validation words read at step {self._saved.step:,}"
        journal.report(sheet(images, texts, self._reader.read(images)), title)

    def _save(self, step: int, validated: dict[str, float]) -> None:
        """Every rank reports; rank 0's folder is the checkpoint, uploaded while the next steps run."""
        self._saved = dataclasses.replace(self._saved, step=step, metrics=validated)
        told = {"step": step} | validated
        local = None
        if self._journal:
            folder = tempfile.mkdtemp(prefix="checkpoint-")
            checkpoint.save(folder, self._state, self._saved)
            self._journal.flush()
            local = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(
            told,
            checkpoint=local,
            checkpoint_dir_name=step_folder(step),
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
            checkpoint_upload_fn=functools.partial(self._upload, told),
        )

    def _upload(self, told: dict[str, float], local: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
        """In the background: the journal, then the checkpoint, whose manifest makes the step one to go on from.

        Ray keeps every checkpoint that it is told of; which ones stay is decided here.
        """
        begin_s = time.monotonic()
        place = open_uri(self._run_root).join(name)
        if self._journal:
            self._journal.mirror()
        upload(local.path, place.uri)
        self._gauges.saved(time.monotonic() - begin_s)
        try:
            prune(self._run_root, self._config.train.best_metric, self._spec.runtime.train.keep_checkpoints)
        except StorageError as error:
            self._say(f"old checkpoints stay for now: {error}")
        ray.get(self._board.report.remote(told | {"checkpoint": place.uri}))
        return ray.train.Checkpoint(path=place.path, filesystem=place.filesystem)

    def _say(self, sentence: str) -> None:
        self._board.say.remote(sentence)


def _first_words(uris: tuple[str, ...], count: int) -> tuple[list[str], list[np.ndarray]]:
    """Texts and images of the first words of each set in turn, `count` in all."""
    share = -(-count // len(uris))
    taken = [record for uri in uris for record in itertools.islice(read_records(uri), share)][:count]
    return [record.text for record in taken], [decode(record.image, record.source) for record in taken]
