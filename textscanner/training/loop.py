"""The training loop: steps between pauses. It decides when something is due; whoever drives it acts.

The loop never logs, saves or validates by itself. It yields a `TrainEvent` whenever a cadence is due; the driver does
what the pause asks for and comes back. Metrics stay on the device until a pause needs them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from textscanner.config import TrainConfig
from textscanner.training.step import STEP_METRICS


@dataclasses.dataclass(frozen=True)
class TrainEvent:
    """What is due after step `step`.

    Attributes:
      metrics: means since the last log, or None where only something else is due; `images_per_s` over all workers,
        `data_wait_fraction` the share of the time that this worker spent waiting for its batches.
    """

    step: int
    metrics: dict[str, float] | None
    validate: bool
    save: bool
    picture: bool


def due(step: int, every: int, last: int) -> bool:
    """Every cadence question: at multiples of `every`, and at the last step."""
    return step % every == 0 or step == last


def training_loop(
    train_step: Callable[[Any], tf.Tensor], batches: Iterator[Any], start_step: int, config: TrainConfig
) -> Iterator[TrainEvent]:
    """Runs steps `start_step + 1` to `num_steps`, yielding at every cadence.

    Raises:
      FloatingPointError: a logged loss is not finite.
    """
    meter = _Meter(config.global_batch_size)
    for step in range(start_step + 1, config.num_steps + 1):
        begin = time.perf_counter()
        batch = next(batches)
        meter.waited_s += time.perf_counter() - begin
        meter.pending.append(train_step(batch))
        meter.stepped_s += time.perf_counter() - begin
        last = config.num_steps
        log = due(step, config.log_every_steps, last)
        validate = due(step, config.validate_every_steps, last)
        save = due(step, config.checkpoint_every_steps, last)
        picture = due(step, config.image_every_steps, last)
        if log or validate or save or picture:
            yield TrainEvent(step, meter.read(step) if log else None, validate, save, picture)
        elif step == start_step + 1:
            meter.forget_time()  # the step was traced and compiled: its time says nothing of the next


class _Meter:
    """Step metrics and times since the last log; time outside of steps (validation, saving) does not count."""

    def __init__(self, global_batch_size: int) -> None:
        self._global_batch = global_batch_size
        self._reset()

    def _reset(self) -> None:
        self.pending: list[tf.Tensor] = []
        self._untimed = 0
        self.waited_s = 0.0
        self.stepped_s = 0.0

    def forget_time(self) -> None:
        """Leaves the steps so far out of the rates; their metrics still count."""
        self._untimed = len(self.pending)
        self.waited_s = self.stepped_s = 0.0

    def read(self, step: int) -> dict[str, float]:
        begin = time.perf_counter()
        rows = np.stack([vector.numpy() for vector in self.pending])  # waits for the device
        elapsed_s = self.stepped_s + time.perf_counter() - begin
        means = dict(zip(STEP_METRICS, rows.mean(0).tolist(), strict=True))
        if not np.isfinite(rows).all():
            raise FloatingPointError(
                f"step {step}: the loss or the gradient is not finite ({means}); lower optimizer.learning_rate, "
                "or set optimizer.clip_norm"
            )
        means["images_per_s"] = (len(rows) - self._untimed) * self._global_batch / elapsed_s
        means["data_wait_fraction"] = self.waited_s / elapsed_s
        self._reset()
        return means
