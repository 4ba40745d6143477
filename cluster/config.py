"""How a run is executed: workers, devices, reading tasks, caches. A run may be resumed with other values.

`RunSpec` joins this with the `Config` of the model (`textscanner/config.py`) and checks the rules that involve both.
On the command line both are one namespace of `section.key=value`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic.dataclasses import dataclass

from textscanner.config import STRICT, Config, require
from textscanner.config_parsing import assign, parse

MINUTES_RULE = "must be a number of minutes, 0 for steps only, or auto"


def _minutes(value: Any) -> Any:
    """One rule for a number or `auto`; pydantic alone would report one for each type."""
    with contextlib.suppress(TypeError, ValueError):
        return value if value == "auto" else float(value)
    raise ValueError(f"train.checkpoint_every_minutes is {value!r}: {MINUTES_RULE}")


@dataclass(frozen=True, config=STRICT)
class WorkerConfig:
    """Workers of a run, and how often they are restarted; keys `train.*`."""

    workers: int = 1
    """Worker processes."""
    gpus_per_worker: int = 0
    """GPUs of each worker, one replica each; 0 trains on the CPU."""
    cpus_per_worker: float = 0.5
    """CPUs that Ray reserves for each worker."""
    threads_per_worker: int = 0
    """TensorFlow threads of a CPU worker; 0 divides the node's cores among its workers."""
    max_failures: int = 3
    """Automatic restarts after failures without a new checkpoint in between; -1 has no limit."""
    max_skipped_steps: int = 20
    """Steps in a row without an update, because the loss or the gradient is not finite; more end the run."""
    checkpoint_every_minutes: Annotated[float | Literal["auto"], pydantic.BeforeValidator(_minutes)] = 10.0
    """Most minutes between checkpoints, beside `train.checkpoint_every_steps`; checked when metrics are logged. With 0
    only steps count; `auto` weighs the time that checkpoints take against failures (Young, 1974; Daly, 2006)."""
    mean_hours_between_failures: float = 24.0
    """Mean time between failures of the run, over all its nodes; with `checkpoint_every_minutes=auto`."""
    keep_checkpoints: int = 2
    """Checkpoint retention: number of best checkpoints by `train.best_metric` to keep; the two newest are also kept."""
    tracker: Literal["none", "mlflow", "wandb"] = "none"
    """Experiment tracker that metrics are sent to (`cluster/tracking/trackers.py`)."""

    def __post_init__(self) -> None:
        for name in ("workers", "keep_checkpoints"):
            require(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "must be at least 1")
        for name in ("gpus_per_worker", "threads_per_worker", "max_skipped_steps"):
            require(getattr(self, name) >= 0, f"train.{name}", getattr(self, name), "must not be negative")
        require(self.cpus_per_worker > 0, "train.cpus_per_worker", self.cpus_per_worker, "must be positive")
        self._check_checkpoint_clock()
        require(self.max_failures >= -1, "train.max_failures", self.max_failures, "must be -1 (no limit) or more")

    def _check_checkpoint_clock(self) -> None:
        minutes, hours = self.checkpoint_every_minutes, self.mean_hours_between_failures
        is_valid = minutes == "auto" or 0 <= minutes < math.inf
        require(is_valid, "train.checkpoint_every_minutes", minutes, MINUTES_RULE)
        require(0 < hours < math.inf, "train.mean_hours_between_failures", hours, "must be a positive number of hours")

    @property
    def replicas_per_worker(self) -> int:
        """Devices that one worker drives: its GPUs, or its CPU as one."""
        return max(1, self.gpus_per_worker)


@dataclass(frozen=True, config=STRICT)
class IngestConfig:
    """How training data is read; keys `data.*`."""

    cpus_per_read_task: float = 0.5
    """CPUs that Ray reserves for each reading task."""
    prefetch_batches: int = 4
    """Batches prefetched ahead of the step, per worker."""
    cache_dir: str = ""
    """Folder on each node where row groups fetched from a bucket are cached; empty for none."""
    cache_gib: float = 20.0
    """Size limit of the cache in GiB; the least recently used row groups are evicted."""

    row_log_dir: str = ""
    """Test mode: folder on each node in which every worker logs the row ids of each step; empty for none."""

    def __post_init__(self) -> None:
        require(self.cpus_per_read_task > 0, "data.cpus_per_read_task", self.cpus_per_read_task, "must be positive")
        require(self.cache_gib > 0, "data.cache_gib", self.cache_gib, "must be positive; empty cache_dir disables it")
        require(self.prefetch_batches >= 1, "data.prefetch_batches", self.prefetch_batches, "must be at least 1")


@dataclass(frozen=True, config=STRICT)
class RuntimeConfig:
    """How a run is executed."""

    train: WorkerConfig = dataclasses.field(default_factory=WorkerConfig)
    """Workers and failures."""
    data: IngestConfig = dataclasses.field(default_factory=IngestConfig)
    """Reading."""

    def to_dict(self) -> dict[str, Any]:
        """A JSON-compatible dict that `from_dict` reads."""
        values: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return values

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> RuntimeConfig:
        """The config in such a dict.

        Raises:
          UserError: naming each value that is unknown or breaks a rule.
        """
        return parse(_ADAPTER, values)


_ADAPTER = pydantic.TypeAdapter(RuntimeConfig)


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """A complete run: what is trained, and how it is executed.

    Raises:
      UserError: the global batch cannot be divided among the workers.
    """

    config: Config
    runtime: RuntimeConfig = dataclasses.field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        workers, streams = self.runtime.train.workers, self.config.data.num_streams
        require(streams % workers == 0, "data.num_streams", streams, f"must be a multiple of train.workers ({workers})")
        batch = self.config.train.global_batch_size
        micro_batches = self.num_replicas * self.config.optimizer.gradient_accumulation_steps
        require(
            batch % micro_batches == 0,
            "train.global_batch_size",
            batch,
            f"must be a multiple of workers x devices x gradient_accumulation_steps ({micro_batches})",
        )

    @property
    def num_replicas(self) -> int:
        """Devices over all workers."""
        return self.runtime.train.workers * self.runtime.train.replicas_per_worker

    @property
    def replica_batch_size(self) -> int:
        """Images per step and device."""
        return self.config.train.global_batch_size // self.num_replicas

    def to_dict(self) -> dict[str, Any]:
        """A JSON-compatible dict that `from_dict` reads."""
        return {"config": self.config.to_dict(), "runtime": self.runtime.to_dict()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> RunSpec:
        """The spec in such a dict.

        Raises:
          UserError: naming each value that is unknown or breaks a rule.
        """
        return RunSpec(Config.from_dict(values["config"]), RuntimeConfig.from_dict(values["runtime"]))

    def flat_sections(self) -> dict[str, Any]:
        """Both configs as one dict of sections, as the command line names them."""
        sections = self.config.to_dict()
        for section, values in self.runtime.to_dict().items():
            sections[section] = sections[section] | values
        return sections


def override(spec: RunSpec, assignments: Iterable[str]) -> RunSpec:
    """The spec with `section.key=value` assignments applied; a key belongs to whichever config has it.

    Raises:
      UserError: an assignment is not of that form, names no key, or its value breaks a rule.
    """
    sections = spec.flat_sections()
    for assignment in assignments:
        assign(sections, assignment)
    runtime = {
        section: {key: sections[section].pop(key) for key in values}
        for section, values in spec.runtime.to_dict().items()
    }
    return RunSpec(Config.from_dict(sections), RuntimeConfig.from_dict(runtime))
