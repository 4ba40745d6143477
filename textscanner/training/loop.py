"""The training loop: it runs steps and decides when something is due; its driver logs, validates and saves.

Apart from the steps, the loop has no effects. It yields a `TrainEvent` whenever a cadence is due and continues when the
driver asks for the next event. Metrics stay on the device until an event needs them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from textscanner.config import TrainConfig
from textscanner.training.step import StepMetrics, TrainStep


@dataclasses.dataclass(frozen=True)
class TrainEvent:
    """What is due after a step.

    Attributes:
      step: steps done, counted from the start of the run.
      metrics: means since the last logged step, or None if no logging is due. The fields of `StepMetrics`, and
        `images_per_s` over all workers, and `data_wait_fraction`, the fraction of the time that this worker waited for
        batches.
      validate: score the validation sets.
      checkpoint: save a checkpoint.
      image: draw validation words with their maps.
    """

    step: int
    metrics: dict[str, float] | None
    validate: bool
    checkpoint: bool
    image: bool


def due(step: int, every: int, last: int) -> bool:
    """Whether a cadence is due: at multiples of `every`, and at the last step."""
    return step % every == 0 or step == last


def training_loop(
    train_step: TrainStep, batches: Iterator[Any], start_step: int, config: TrainConfig
) -> Iterator[TrainEvent]:
    """Runs steps `start_step + 1` to `num_steps` and yields whenever a cadence is due.

    Args:
      train_step: the compiled step.
      batches: one batch per step, in order.
      start_step: steps already done, 0 for a new run.
      config: number of steps and cadences.

    Raises:
      FloatingPointError: the loss or the gradient of a step was not finite. Raised instead of the next event, whatever
        is due: weights that are not finite are never validated nor saved.
    """
    meter = _Meter(config.global_batch_size)
    last = config.num_steps
    for step in range(start_step + 1, last + 1):
        begin_s = time.perf_counter()
        batch = next(batches)
        meter.waited_s += time.perf_counter() - begin_s
        meter.pending.append(train_step(batch))
        meter.stepped_s += time.perf_counter() - begin_s
        log = due(step, config.log_every_steps, last)
        validate = due(step, config.validate_every_steps, last)
        checkpoint = due(step, config.checkpoint_every_steps, last)
        image = due(step, config.image_every_steps, last)
        if log or validate or checkpoint or image:
            meter.check(step)
            yield TrainEvent(step, meter.read() if log else None, validate, checkpoint, image)
        elif step == start_step + 1:
            meter.discard_time()  # tracing and compilation took most of it


class _Meter:
    """Metrics and times since the last logged step. Time outside of steps (validation, saving) does not count."""

    def __init__(self, global_batch_size: int) -> None:
        self._global_batch_size = global_batch_size
        self.pending: list[StepMetrics] = []  # on the device
        self._reset()

    def _reset(self) -> None:
        self._rows: list[np.ndarray] = []  # [metrics] of each step since the last logged one, finite
        self._num_untimed = 0
        self.waited_s = 0.0
        self.stepped_s = 0.0

    def discard_time(self) -> None:
        """Excludes the steps so far from the rates; their metrics still count."""
        self._num_untimed = len(self.pending)
        self.waited_s = self.stepped_s = 0.0

    def check(self, last_step: int) -> None:
        """Reads the steps since the last event, up to `last_step`, from the device.

        Raises:
          FloatingPointError: a metric of a step is not finite.
        """
        begin_s = time.perf_counter()
        rows = [np.array([scalar.numpy() for scalar in metrics]) for metrics in self.pending]
        self.stepped_s += time.perf_counter() - begin_s  # waiting for the device is the time of the steps
        for row, step in zip(rows, range(last_step - len(rows) + 1, last_step + 1), strict=True):
            if not np.isfinite(row).all():
                metrics = dict(zip(StepMetrics._fields, row.tolist(), strict=True))
                raise FloatingPointError(
                    f"step {step}: the loss or the gradient is not finite ({metrics}); lower optimizer.learning_rate "
                    "or set optimizer.clip_norm"
                )
        self._rows += rows
        self.pending.clear()

    def read(self) -> dict[str, float]:
        """Means since the last logged step, all of them checked; begins anew."""
        rows = np.array(self._rows)  # [steps, metrics]
        means = dict(zip(StepMetrics._fields, rows.mean(0).tolist(), strict=True))
        means["images_per_s"] = (len(rows) - self._num_untimed) * self._global_batch_size / self.stepped_s
        means["data_wait_fraction"] = self.waited_s / self.stepped_s
        self._reset()
        return means
