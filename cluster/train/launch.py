"""`train_run(config)`: a distributed training run from a config, the only way in for jobs, sweeps and tests."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig

from cluster.config import RunSpec
from cluster.data.shards import read_manifest
from cluster.errors import RunError
from cluster.logs import load_tensorflow
from cluster.session import cluster_limits, local_session
from cluster.storage.checkpoints import fetch_checkpoint, list_checkpoints, select_checkpoint
from cluster.storage.location import absolute_uri, open_uri
from cluster.storage.run_layout import RunLayout
from cluster.train.progress import Listener, ProgressActor, ProgressBar
from textscanner.checkpoint_files import STATE_NAME, shipped_weights
from textscanner.config import Config, difference

RAY_SNAPSHOT_NAME = "checkpoint_manager_snapshot.json"


@dataclasses.dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
      checkpoint: URI of the best checkpoint by `train.best_metric`.
      last: URI of the last one.
      metrics: of the best checkpoint.
      run_root: URI of the run's folder.
    """

    checkpoint: str
    last: str
    metrics: dict[str, float]
    run_root: str


def describe(spec: RunSpec) -> list[str]:
    """The batch arithmetic of a run, a line each; reads the manifests.

    Raises:
      ValueError: a data set is missing, or the config names none.
    """
    config, workers = spec.config, spec.runtime.train
    if not config.data.train:
        raise ValueError("data.train is empty: name at least one prepared data set (--train URI)")
    train, model = config.train, config.model
    manifests = {uri: read_manifest(uri) for uri in (*config.data.train, *config.data.val)}
    rows = {uri: manifest.num_rows for uri, manifest in manifests.items()}
    with_quads = {uri: sum(shard.num_with_quads for shard in manifests[uri].shards) for uri in config.data.train}
    total = sum(rows[uri] for uri in config.data.train)
    if not config.losses.learns_from_words and not any(with_quads.values()):
        raise ValueError(
            "no word of data.train has character boxes, and losses.word_weight and losses.mutual_weight are 0: nothing "
            "would be learnt. Add a set with boxes (jobs.render), and --set losses.word_weight=1 to learn from the rest"
        )
    lines = [f"train   {uri}: {rows[uri]:,} words, {with_quads[uri]:,} with boxes" for uri in config.data.train]
    lines += [f"val     {uri}: {rows[uri]:,} words" for uri in config.data.val]
    device = f"{workers.gpus_per_worker} GPU" if workers.gpus_per_worker else "CPU"
    lines.append(
        f"batch   {workers.workers} workers x {workers.replicas_per_worker} replicas ({device}) x "
        f"{spec.replica_batch_size} images = {train.global_batch_size} a step, from {config.data.num_streams} streams"
    )
    epochs = train.num_steps * train.global_batch_size / total
    lines.append(
        f"steps   {train.num_steps:,} = {train.num_steps * train.global_batch_size:,} images = {epochs:.2f} epochs"
    )
    lines.append(
        f"model   {config.preset}, {model.height_px}x{model.width_px} px, maps {model.map_height}x{model.map_width}, "
        f"{config.charset.num_classes} classes, words up to {model.max_label_length} characters"
    )
    return lines


def train_run(spec: RunSpec, storage_uri: str, name: str, listener: Listener | None = None) -> RunResult:
    """Trains a run in `storage_uri/name`, resuming what is there; `listener` is told of progress and checkpoints.

    Raises:
      ValueError: the name holds a run of another config, or the data is missing.
      RunError: the run failed more often than `train.max_failures`.
    """
    load_tensorflow()
    from ray.train.tensorflow import TensorflowTrainer  # imports TensorFlow

    spec = with_absolute_uris(spec)
    config = spec.config
    describe(spec)
    check_start(config.train.init)
    layout = RunLayout(absolute_uri(storage_uri), name)
    _claim(layout, config)
    root = open_uri(layout.root)
    # Ray would refuse to go on when a checkpoint of its own list is gone; storage says what there is, and we keep it.
    root.join(RAY_SNAPSHOT_NAME).delete()
    with local_session(cpus_wanted(spec)):
        _check_room(spec)
        board = ProgressActor.remote()  # type: ignore[attr-defined]
        trainer = TensorflowTrainer(
            _entry,
            train_loop_config={"spec": spec.to_dict(), "run_root": layout.root, "board": board},
            scaling_config=_scaling(spec),
            run_config=RunConfig(
                name=name,
                storage_path=open_uri(layout.storage_uri).path,
                storage_filesystem=root.filesystem,
                failure_config=FailureConfig(max_failures=spec.runtime.train.max_failures),
            ),
        )
        try:
            with ProgressBar(board, config.train.num_steps, listener):
                trainer.fit()
        except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
            raise RunError(_reason(error)) from error
    return _result(config, layout)


def _entry(settings: dict[str, Any]) -> None:
    """The loop is imported in the worker only: the driver needs neither the network nor its memory."""
    from cluster.train.worker import train_worker

    train_worker(settings)


def _scaling(spec: RunSpec) -> ScalingConfig:
    train = spec.runtime.train
    resources: dict[str, float] = {"CPU": train.cpus_per_worker}
    if train.gpus_per_worker:
        resources["GPU"] = train.gpus_per_worker
    return ScalingConfig(num_workers=train.workers, use_gpu=train.gpus_per_worker > 0, resources_per_worker=resources)


def cpus_wanted(spec: RunSpec) -> int:
    """CPUs of a cluster on one machine. There they are only a count: enough for the workers and two reading tasks."""
    wanted = spec.runtime.train.workers * spec.runtime.train.cpus_per_worker + 2 * spec.runtime.data.cpus_per_read_task
    return max(os.cpu_count() or 1, math.ceil(wanted))


def cpu_shortage(spec: RunSpec) -> str:
    """Why the connected cluster has too few CPUs for the workers and a reading task; empty if it has enough."""
    cpus = cluster_limits().get("CPU", 0.0)
    read_cpus = spec.runtime.data.cpus_per_read_task
    workers = spec.runtime.train.workers * spec.runtime.train.cpus_per_worker
    if workers + read_cpus <= cpus:
        return ""
    return (
        f"train.workers x train.cpus_per_worker is {workers:g}, which leaves no data.cpus_per_read_task "
        f"({read_cpus:g}) of the cluster's {cpus:g} CPUs for reading: lower one, or add CPU nodes"
    )


def _check_room(spec: RunSpec) -> None:
    if shortage := cpu_shortage(spec):
        raise ValueError(shortage)


def check_start(init: str) -> None:
    """Refuses a start that is no checkpoint here, and not on every worker after a minute."""
    if init and not open_uri(fetch_checkpoint(init)).join(STATE_NAME).exists():
        shipped = ", ".join(shipped_weights()) or "none"
        raise ValueError(f"train.init is {init!r}: there is no checkpoint; weights that the package brings: {shipped}")


def with_absolute_uris(spec: RunSpec) -> RunSpec:
    """The spec with URIs that every process understands: workers run in other folders."""
    config, data = spec.config, spec.config.data
    train, val = (tuple(absolute_uri(uri) for uri in uris) for uris in (data.train, data.val))
    init = config.train.init
    if init and init not in shipped_weights():
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, init=absolute_uri(init)))
    config = dataclasses.replace(config, data=dataclasses.replace(data, train=train, val=val))
    return dataclasses.replace(spec, config=config)


def _claim(layout: RunLayout, config: Config) -> None:
    """Writes the config into a new run's folder; refuses a folder that holds another."""
    location = open_uri(layout.config)
    if location.write_new(json.dumps(config.to_dict(), indent=2).encode()):
        return
    changed = difference(Config.from_dict(json.loads(location.read_bytes())).to_dict(), config.to_dict())
    if changed:
        raise ValueError(
            f"{layout.root} holds a run with another config; give another --name, or the old values. Changed:\n  "
            + "\n  ".join(changed)
        )


def _reason(error: Exception) -> str:
    failures = getattr(error, "worker_failures", {}) or {}
    told = [f"rank {rank}: {str(failure).strip().splitlines()[-1]}" for rank, failure in sorted(failures.items())]
    return "; ".join(told) or str(error).strip().splitlines()[-1]


def _result(config: Config, layout: RunLayout) -> RunResult:
    found = list_checkpoints(layout.root)
    best = select_checkpoint(found, config.train.best_metric)
    return RunResult(best.uri, select_checkpoint(found, last=True).uri, best.metrics, layout.root)
