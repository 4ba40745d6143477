"""The training function of each Ray Train worker: connects the training loop to data, storage and the other workers.

Every rank takes the same number of steps and reports equally often; otherwise collectives hang. Work that only rank 0
does is in `RankZeroOutputs`, which the other ranks do not have.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import ray.train
import tensorflow as tf
from ray.train import CheckpointUploadMode
from ray.train.collective import broadcast_from_rank_zero

from cluster.config import RunSpec, WorkerConfig
from cluster.data.ingest import dataset_names, evaluation_rows, make_training_sampler, worker_batches
from cluster.data.shards import Manifest, read_manifest
from cluster.data.tf_input import DistributedBatches, log_rows
from cluster.storage.checkpoint_manifest import StoredCheckpoint
from cluster.storage.checkpoints import fetch_checkpoint, latest_valid, step_folder, verify
from cluster.storage.location import open_uri
from cluster.storage.retention import ABANDONED_AFTER_S
from cluster.train.checkpoint_clock import CheckpointClock
from cluster.train.progress import notify
from cluster.train.rank_zero import RankZeroOutputs
from cluster.train.strategy import make_strategy, sum_over_workers
from textscanner import checkpoint
from textscanner.checkpoint import CheckpointMeta
from textscanner.evaluation.calibration import Calibration
from textscanner.inference.decode import DEFAULT_THRESHOLD
from textscanner.inference.postprocess import READ_BATCH
from textscanner.inference.reader import Reader
from textscanner.training.loop import TrainEvent, training_loop
from textscanner.training.step import TrainingState, create_state, make_train_step


@dataclasses.dataclass(frozen=True)
class WorkerSettings:
    """What the driver passes to every worker.

    Attributes:
      spec: the run spec, as a dict.
      run_root: URI of the run's folder.
      progress_actor: handle of the driver's `ProgressActor`.
      content_hashes: of the run's data sets, by URI.
    """

    spec: dict[str, Any]
    run_root: str
    progress_actor: Any
    content_hashes: dict[str, str]


def train_worker(settings: WorkerSettings) -> None:
    """Trains until the last step. The order is fixed, also when resuming; `test_worker.py` checks it:

    1. the strategy, before any other TensorFlow operation
    2. model and optimizer, newly initialized, identical on every rank
    3. the newest checkpoint into both, on every rank
    4. the data sampler, started at the restored step
    5. the first step
    """
    spec = RunSpec.from_dict(settings.spec)
    config = spec.config
    context = ray.train.get_context()
    rank, num_workers = context.get_world_rank(), context.get_world_size()
    if rank == 0:  # from here on, a worker that hangs is stalled and not awaited
        notify(settings.progress_actor.set_progress, {"step": 0, "starting": 1})
    strategy = make_strategy(_with_threads(spec.runtime.train, context.get_local_world_size()))
    state = create_state(config, strategy)
    meta = _restore(state, settings, rank)
    sampler = make_training_sampler(config, settings.content_hashes)
    worker = _Worker(spec, state, settings, rank=rank, num_workers=num_workers, meta=meta)
    batches = worker_batches(
        spec,
        sampler,
        worker=rank,
        num_workers=num_workers,
        start_step=meta.step,
        num_steps=config.train.num_steps - meta.step,
    )
    distributed_batches: Iterator[Any] = DistributedBatches(spec, batches, strategy)
    if folder := spec.runtime.data.row_log_dir:
        distributed_batches = log_rows(distributed_batches, strategy, folder, rank=rank, start_step=meta.step)
    max_skipped_steps = spec.runtime.train.max_skipped_steps
    for event in training_loop(
        make_train_step(state), distributed_batches, meta.step, config.train, max_skipped_steps=max_skipped_steps
    ):
        worker.handle(event)
    worker.close()


def _with_threads(train: WorkerConfig, local_world_size: int) -> WorkerConfig:
    """Sets `threads_per_worker` of a CPU run that leaves it at 0: the node's cores, divided among its workers."""
    if train.threads_per_worker or train.gpus_per_worker:
        return train
    return dataclasses.replace(train, threads_per_worker=max(1, (os.cpu_count() or 1) // local_world_size))


def _restore(state: TrainingState, settings: WorkerSettings, rank: int) -> CheckpointMeta:
    """Restores the newest complete checkpoint in storage, which rank 0 selects for all, or starts a new run.

    Storage decides, not Ray's own record of checkpoints, which may lag behind an upload.
    """
    newest = _newest_checkpoint(settings) if rank == 0 else None
    uri = broadcast_from_rank_zero(newest[0].uri if newest else "")
    if not uri:
        return _initialize(state, settings, rank)
    if newest:  # rank 0 has fetched and verified it already
        return checkpoint.restore(newest[1], state)
    folder = fetch_checkpoint(uri)
    verify(folder)
    return checkpoint.restore(folder, state)


def _initialize(state: TrainingState, settings: WorkerSettings, rank: int) -> CheckpointMeta:
    """Starts a new run: with the weights and the threshold of `train.init`, or random weights."""
    init = state.config.train.init
    if not init:
        return CheckpointMeta(0, DEFAULT_THRESHOLD, {})
    folder = pathlib.Path(fetch_checkpoint(init))
    reinitialized = checkpoint.initialize(folder, state)
    if rank == 0:
        layers = f"; re-initialized: {', '.join(reinitialized)}" if reinitialized else ""
        _send_message(settings, f"started with the weights of {init}{layers}")
        if differences := checkpoint.init_differences(folder, state.config):
            _send_message(settings, f"init {init}: {', '.join(differences)}")
    # Without validation sets nothing calibrates the threshold anew.
    return CheckpointMeta(0, checkpoint.read_meta(folder).threshold, {})


def _newest_checkpoint(settings: WorkerSettings) -> tuple[StoredCheckpoint, str] | None:
    """The newest checkpoint whose files match their hashes, and the local folder that it was fetched into."""
    open_uri(settings.run_root).abort_uploads(ABANDONED_AFTER_S)  # left by attempts that were killed
    newest, damaged = latest_valid(settings.run_root)
    for reason in damaged:
        _send_message(settings, f"skipped a damaged checkpoint: {reason}")
    return newest


def _send_message(settings: WorkerSettings, message: str) -> None:
    """Prints a line on the driver, and waits for it: what follows may end this process."""
    notify(settings.progress_actor.add_message, message, wait=True)


class _Worker:
    """Handles the events of the training loop on one rank."""

    def __init__(
        self,
        spec: RunSpec,
        state: TrainingState,
        settings: WorkerSettings,
        *,
        rank: int,
        num_workers: int,
        meta: CheckpointMeta,
    ) -> None:
        self._spec, self._state, self._config = spec, state, state.config
        self._rank, self._num_workers = rank, num_workers
        self._meta = meta
        self._reader = Reader(
            self._config, state.ema_model, step=meta.step, metrics=meta.metrics, threshold=meta.threshold
        )
        hashes = settings.content_hashes
        self._val_manifests: list[Manifest] = [read_manifest(uri, hashes.get(uri)) for uri in self._config.data.val]
        self._checkpoint_clock = CheckpointClock(spec.runtime.train)
        self._outputs: RankZeroOutputs | None = None
        if rank == 0:
            self._outputs = RankZeroOutputs(spec, settings.run_root, settings.progress_actor, start_step=meta.step)
            if meta.step:
                self._outputs.send_message(f"resumed at step {meta.step}")

    def handle(self, event: TrainEvent) -> None:
        """Does everything that is due: validation before saving, so that a checkpoint carries its own metrics."""
        if event.num_skipped and self._outputs:
            self._outputs.send_message(
                f"step {event.step}: {event.num_skipped} steps skipped since the last log or checkpoint: the loss or "
                "the gradient was not finite"
            )
        if event.metrics is not None and self._outputs:
            learning_rate = float(self._state.optimizer.learning_rate.numpy())
            self._outputs.log_step(event.step, event.metrics, learning_rate)
        checkpoint_due = event.checkpoint or self._due_by_clock(event)
        if event.validate or checkpoint_due or event.image:
            self._state.sync_ema()
        metrics: dict[str, float] = {}
        if event.validate and self._val_manifests:
            metrics = self._validate(event.step)
        if event.image and self._val_manifests and self._outputs:
            self._outputs.write_image(event.step, self._reader)
        if checkpoint_due:
            self._save(event.step, metrics)

    def _due_by_clock(self, event: TrainEvent) -> bool:
        """Whether rank 0's clock demands a checkpoint. The clocks of the ranks differ, and all must save or none.

        Asked only with the metrics, when all ranks have just waited for each other's gradients; and not while steps are
        skipped, when the weights may be at fault.
        """
        if event.metrics is None or event.num_skipped or math.isinf(self._checkpoint_clock.interval_s):
            return False
        due = self._checkpoint_clock.is_due()
        return due if self._num_workers == 1 else broadcast_from_rank_zero(due)

    def close(self) -> None:
        if self._outputs:
            self._outputs.close(self._reader, self._meta)

    def _validate(self, step: int) -> dict[str, float]:
        """Scores the whole validation sets over all workers and calibrates the decoder's threshold on them.

        A collective. Every rank reads its share of the words; the sums over all ranks give the same metrics everywhere.
        """
        names = dataset_names(self._config.data.val)
        calibration = Calibration(len(names))
        shares = evaluation_rows(
            self._spec, self._config.data.val, self._val_manifests, worker=self._rank, num_workers=self._num_workers
        )
        for dataset, rows in shares:
            for start in range(0, len(rows["length"]), READ_BATCH):
                batch = slice(start, start + READ_BATCH)
                decoded = self._reader.decode_batch(rows["image"][batch])
                truths, case_known = rows["text"][batch].tolist(), rows["case_known"][batch] > 0
                calibration.add(dataset, truths, decoded, self._config.charset, case_known)
                if self._outputs:
                    self._outputs.validating(start)
        total = sum_over_workers(self._state.strategy, tf.constant(calibration.as_vector()))
        threshold, metrics = calibration.with_vector(np.asarray(total)).best(names)
        self._meta = CheckpointMeta(step, threshold, metrics)
        self._reader.threshold = threshold
        if self._outputs:
            self._outputs.log_validation(step, metrics)
        return metrics

    def _save(self, step: int, metrics: dict[str, float]) -> None:
        """Saves on rank 0 and reports on every rank; the upload runs beside the next steps.

        Args:
          metrics: those of a validation at this very step; empty if there was none.
        """
        begin_s = self._checkpoint_clock.now_s()
        self._meta = dataclasses.replace(self._meta, step=step, metrics=metrics)
        report = {"step": step} | metrics
        local, upload = None, None
        if self._outputs:
            local = self._outputs.save(self._state, self._meta)
            upload = functools.partial(self._outputs.upload, report)
        ray.train.report(
            report,
            checkpoint=local,
            checkpoint_dir_name=step_folder(step),
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
            checkpoint_upload_fn=upload,
        )
        self._checkpoint_clock.saved(begin_s)
