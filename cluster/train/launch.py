"""`train_run(spec, storage_uri, name)`: a distributed training run. Jobs, sweeps, preflight and tests all call it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer  # what Ray's own trainers derive from

from cluster.config import RunSpec
from cluster.data.ingest import validation_metrics
from cluster.data.shards import Manifest, read_manifest, require_content
from cluster.errors import RunError
from cluster.session import cluster_limits, local_session
from cluster.storage.checkpoints import fetch_checkpoint, list_checkpoints, select_checkpoint
from cluster.storage.lease import exclusive
from cluster.storage.location import absolute_uri, open_uri
from cluster.storage.run_layout import RunLayout
from cluster.train.progress import ClearProgress, Listener, ProgressBar, start_progress_actor
from cluster.train.restarts import Trainer, failure_message, fit_with_restarts
from cluster.train.tf_config import TFConfigBackend
from textscanner.checkpoint_files import STATE_NAME, shipped_weights
from textscanner.config import Config
from textscanner.config_parsing import difference, json_object
from textscanner.errors import UserError


@dataclasses.dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
      checkpoint: URI of the best checkpoint by `train.best_metric`.
      last: URI of the last checkpoint.
      metrics: of the best checkpoint.
      run_root: URI of the run's folder.
    """

    checkpoint: str
    last: str
    metrics: dict[str, float]
    run_root: str


def train_run(
    spec: RunSpec, storage_uri: str, name: str, listener: Listener | None = None, *, in_sweep: bool = False
) -> RunResult:
    """Trains a run in `storage_uri/name`; the same call resumes it from its newest checkpoint.

    Joins the Ray cluster that this process is connected to, or starts one on this machine.

    Args:
      storage_uri: folder or bucket of all runs.
      name: the run's folder in it.
      listener: called with progress and checkpoint reports, from another thread.
      in_sweep: the run belongs to a sweep, whose driver holds the lease on its folder.

    Raises:
      UserError: another process trains this run, the folder holds a run of another config or on other data, the data is
        missing, or the cluster is too small.
      RunError: the run failed more often than `train.max_failures` without progress, or another process took it over.
      StorageError: storage refused or did not answer.

    Example:
      >>> from cluster.config import RunSpec, override
      >>> from textscanner.presets import preset
      >>> spec = override(RunSpec(preset("tiny")), ['data.train=["data/words"]', "train.workers=2"])
      >>> train_run(spec, "runs", "first").checkpoint  # doctest: +SKIP
      '/home/me/runs/first/step_00010000'
    """
    spec = with_absolute_uris(spec)
    config = spec.config
    manifests = _read_manifests(config)
    _describe(spec, manifests)
    check_init(config.train.init)
    layout = RunLayout(absolute_uri(storage_uri), name)
    with contextlib.nullcontext() if in_sweep else exclusive(layout.root):
        _claim_folder(layout, config)
        content_hashes = _pin_data(layout, manifests)
        _train(spec, layout, listener, content_hashes)
    return _result(config, layout)


def _train(spec: RunSpec, layout: RunLayout, listener: Listener | None, content_hashes: dict[str, str]) -> None:
    """Trains to the last step on the connected Ray cluster, or on one of this machine."""
    with local_session(local_cluster_cpus(spec)):
        _check_cpus(spec)
        progress_actor = start_progress_actor()
        try:
            with ProgressBar(progress_actor, spec.config.train.num_steps, listener):
                fit_with_restarts(
                    lambda: _trainer(spec, layout, progress_actor, content_hashes),
                    layout.root,
                    spec.runtime.train.max_failures,
                )
        except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
            raise RunError(failure_message(error)) from error


def _trainer(spec: RunSpec, layout: RunLayout, progress_actor: Any, content_hashes: dict[str, str]) -> Trainer:
    """Ray Train's trainer of one attempt."""
    trainer: Trainer = DataParallelTrainer(
        _train_loop,
        backend_config=TFConfigBackend(),
        train_loop_config={
            "spec": spec.to_dict(),
            "run_root": layout.root,
            "progress_actor": progress_actor,
            "content_hashes": content_hashes,
        },
        scaling_config=_scaling(spec),
        run_config=RunConfig(
            name=layout.name,
            storage_path=open_uri(layout.storage_uri).path,
            storage_filesystem=open_uri(layout.root).filesystem,
            failure_config=FailureConfig(max_failures=0),  # `fit_with_restarts` restarts
            callbacks=[ClearProgress(progress_actor)],  # type: ignore[list-item]  # Ray types the older callbacks
        ),
    )
    return trainer


def describe(spec: RunSpec) -> list[str]:
    """Describes data, batch, steps and model of a run, one line each; reads the manifests of the data sets.

    Raises:
      UserError: a data set is missing, the config names none, nothing could be learned from them, or no validation
        reports `train.best_metric`.
    """
    return _describe(spec, _read_manifests(spec.config))


def _read_manifests(config: Config) -> dict[str, Manifest]:
    """The manifests of all data sets by URI."""
    if not config.data.train:
        raise UserError("data.train is empty: name at least one prepared data set")
    return {uri: read_manifest(uri) for uri in (*config.data.train, *config.data.val)}


def _describe(spec: RunSpec, manifests: Mapping[str, Manifest]) -> list[str]:
    config, workers = spec.config, spec.runtime.train
    train, model = config.train, config.model
    _check_best_metric(config)
    num_rows = {uri: manifest.num_rows for uri, manifest in manifests.items()}
    num_with_quads = {uri: sum(shard.num_with_quads for shard in manifests[uri].shards) for uri in config.data.train}
    num_train_rows = sum(num_rows[uri] for uri in config.data.train)
    if not config.losses.learns_from_words and not any(num_with_quads.values()):
        raise UserError(
            "data.train has no word with character boxes, and losses.word_weight and losses.mutual_weight are 0: "
            "nothing would be learned. Add a data set with boxes (rendered words), "
            "or set losses.word_weight=1 to learn from words without boxes"
        )
    lines = [f"train   {uri}: {num_rows[uri]:,} words, {num_with_quads[uri]:,} with boxes" for uri in config.data.train]
    lines += [f"val     {uri}: {num_rows[uri]:,} words" for uri in config.data.val]
    device = f"{workers.gpus_per_worker} GPU" if workers.gpus_per_worker else "CPU"
    lines.append(
        f"batch   {workers.workers} workers x {workers.replicas_per_worker} replicas ({device}) x "
        f"{spec.replica_batch_size} images = {train.global_batch_size} per step, from {config.data.num_streams} streams"
    )
    num_images = train.num_steps * train.global_batch_size
    lines.append(f"steps   {train.num_steps:,} = {num_images:,} images = {num_images / num_train_rows:.2f} epochs")
    lines.append(
        f"model   {config.preset}, {model.height_px}x{model.width_px} px, maps {model.map_height}x{model.map_width}, "
        f"{config.charset.num_classes} classes, words up to {model.max_label_length} characters"
    )
    return lines


def _check_best_metric(config: Config) -> None:
    """By a name that no checkpoint has, retention would take the newest ones for the best."""
    metric, reported = config.train.best_metric, validation_metrics(config.data.val)
    if reported and metric not in reported:
        raise UserError(f"train.best_metric is {metric!r}: must be one of {', '.join(reported)}")


def _train_loop(settings: dict[str, Any]) -> None:
    """Ray Train's entry point in each worker. Imported only there, so that the driver does not load the network."""
    from cluster.train.worker import WorkerSettings, train_worker

    train_worker(WorkerSettings(**settings))


def _scaling(spec: RunSpec) -> ScalingConfig:
    train = spec.runtime.train
    resources: dict[str, float] = {"CPU": train.cpus_per_worker}
    if train.gpus_per_worker:
        resources["GPU"] = train.gpus_per_worker
    return ScalingConfig(num_workers=train.workers, use_gpu=train.gpus_per_worker > 0, resources_per_worker=resources)


def local_cluster_cpus(spec: RunSpec) -> int:
    """CPUs to give a Ray cluster on one machine: enough for the workers and two reading tasks.

    There, CPUs only limit what runs at once; cores are shared in any case, so more than the machine has is fine.
    """
    train, data = spec.runtime.train, spec.runtime.data
    required = train.workers * train.cpus_per_worker + 2 * data.cpus_per_read_task
    return max(os.cpu_count() or 1, math.ceil(required))


def cpu_shortage(spec: RunSpec) -> str:
    """Explains why the cluster has too few CPUs for the workers and one reading task; empty if it has enough."""
    cluster_cpus = cluster_limits().get("CPU", 0.0)
    read_cpus = spec.runtime.data.cpus_per_read_task
    worker_cpus = spec.runtime.train.workers * spec.runtime.train.cpus_per_worker
    if worker_cpus + read_cpus <= cluster_cpus:
        return ""
    return (
        f"train.workers x train.cpus_per_worker is {worker_cpus:g}, which leaves no data.cpus_per_read_task "
        f"({read_cpus:g}) of the cluster's {cluster_cpus:g} CPUs for reading: lower one, or add CPU nodes"
    )


def _check_cpus(spec: RunSpec) -> None:
    if shortage := cpu_shortage(spec):
        raise UserError(shortage)


def check_init(init: str) -> None:
    """Checks on the driver that `train.init` is a checkpoint, rather than on every worker a minute later.

    Raises:
      UserError: there is no checkpoint.
    """
    if init and not open_uri(fetch_checkpoint(init)).join(STATE_NAME).exists():
        bundled = ", ".join(shipped_weights()) or "none"
        raise UserError(f"train.init is {init!r}: there is no checkpoint there; bundled weights: {bundled}")


def with_absolute_uris(spec: RunSpec) -> RunSpec:
    """Makes the paths of data and `train.init` absolute: workers run in other working directories."""
    config, data = spec.config, spec.config.data
    train, val = (tuple(absolute_uri(uri) for uri in uris) for uris in (data.train, data.val))
    init = config.train.init
    if init and init not in shipped_weights():
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, init=absolute_uri(init)))
    config = dataclasses.replace(config, data=dataclasses.replace(data, train=train, val=val))
    return dataclasses.replace(spec, config=config)


def _claim_folder(layout: RunLayout, config: Config) -> None:
    """Writes the config into the folder of a new run.

    Raises:
      UserError: the folder holds a run with another config, or its config cannot be read.
    """
    location = open_uri(layout.config)
    if location.write_new(json.dumps(config.to_dict(), indent=2).encode()):
        return
    remedy = "choose another name, or delete the run's folder to start again"
    stored = Config.from_dict(json_object(location.read_bytes(), layout.config, remedy), layout.config)
    changed = difference(stored.to_dict(), config.to_dict())
    if changed:
        raise UserError(
            f"{layout.root} holds a run with another config: choose another name, or restore the old values. Changed:"
            "\n  " + "\n  ".join(changed)
        )


def _pin_data(layout: RunLayout, manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """Writes the content hashes of a new run's data sets into its folder; returns them by URI.

    Raises:
      UserError: the run began with other content, or the stored hashes cannot be read.
    """
    hashes = {uri: manifest.content_hash for uri, manifest in manifests.items()}
    location = open_uri(layout.content_hashes)
    if location.write_new(json.dumps(hashes, indent=2).encode()):
        return hashes
    remedy = "choose another name, or delete the run's folder to start again"
    stored = json_object(location.read_bytes(), layout.content_hashes, remedy)
    for uri, manifest in manifests.items():
        require_content(uri, manifest, str(stored.get(uri, "unknown")))
    return hashes


def _result(config: Config, layout: RunLayout) -> RunResult:
    checkpoints = list_checkpoints(layout.root)
    best = select_checkpoint(checkpoints, config.train.best_metric)
    return RunResult(best.uri, select_checkpoint(checkpoints, last=True).uri, best.metrics, layout.root)
