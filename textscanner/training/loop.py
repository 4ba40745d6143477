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

CADENCES = ("log", "validate", "checkpoint", "image")  # of `TrainConfig`; the last three are fields of `TrainEvent`
SKIPPED = StepMetrics._fields.index("skipped")


@dataclasses.dataclass(frozen=True)
class TrainEvent:
    """What is due after a step.

    Attributes:
      step: steps done, counted from the start of the run.
      metrics: means since the last logged step, or None if no logging is due or all those steps were skipped. The
        fields of `StepMetrics`, but `skipped` as the number of skipped steps; `images_per_s` over all workers, and
        `data_wait_fraction`, the fraction of the time that this worker waited for batches.
      validate: score the validation sets.
      checkpoint: save a checkpoint.
      image: draw validation words with their maps.
      num_skipped: skipped steps since the last event.
    """

    step: int
    metrics: dict[str, float] | None
    validate: bool
    checkpoint: bool
    image: bool
    num_skipped: int = 0


def due(step: int, every: int, last: int) -> bool:
    """Whether a cadence is due: at multiples of `every`, and at the last step."""
    return step % every == 0 or step == last


def training_loop(
    train_step: TrainStep, batches: Iterator[Any], start_step: int, config: TrainConfig, max_skipped_steps: int = 0
) -> Iterator[TrainEvent]:
    """Runs steps `start_step + 1` to `num_steps` and yields whenever a cadence is due.

    While steps are being skipped, the weights may be at fault: what is due at a skipped step is postponed to the next
    event at a step that counts, or the last step.

    Args:
      train_step: the compiled step.
      batches: one batch per step, in order.
      start_step: steps already done, 0 for a new run.
      config: number of steps and cadences.
      max_skipped_steps: in a row.

    Raises:
      FloatingPointError: more steps in a row were skipped. Raised instead of the next event, whatever is due.
    """
    meter = _Meter(config.global_batch_size, max_skipped_steps)
    last, postponed = config.num_steps, frozenset[str]()
    for step in range(start_step + 1, last + 1):
        begin_s = time.perf_counter()
        batch = next(batches)
        meter.waited_s += time.perf_counter() - begin_s
        meter.pending.append(train_step(batch))
        meter.stepped_s += time.perf_counter() - begin_s
        names = frozenset(name for name in CADENCES if due(step, getattr(config, f"{name}_every_steps"), last))
        if names:
            num_skipped = meter.check(step)
            names |= postponed
            postponed = names - {"log"} if meter.skipped_in_a_row and step < last else frozenset()
            metrics = meter.read() if "log" in names else None
            validate, checkpoint, image = (name in names - postponed for name in CADENCES[1:])
            yield TrainEvent(step, metrics, validate, checkpoint, image, num_skipped)
        elif step == start_step + 1:
            meter.discard_time()  # tracing and compilation took most of it


class _Meter:
    """Metrics and times since the last logged step. Time outside of steps (validation, saving) does not count."""

    def __init__(self, global_batch_size: int, max_skipped_steps: int) -> None:
        self._global_batch_size, self._max_skipped_steps = global_batch_size, max_skipped_steps
        self.skipped_in_a_row = 0  # up to the newest step that was read from the device
        self.pending: list[StepMetrics] = []  # on the device
        self._reset()

    def _reset(self) -> None:
        self._rows: list[np.ndarray] = []  # [metrics] of each step since the last logged one that counts, finite
        self._num_skipped = 0
        self._num_untimed = 0
        self.waited_s = 0.0
        self.stepped_s = 0.0

    def discard_time(self) -> None:
        """Excludes the steps so far from the rates; their metrics still count."""
        self._num_untimed = len(self.pending)
        self.waited_s = self.stepped_s = 0.0

    def check(self, last_step: int) -> int:
        """Reads the steps since the last event, up to `last_step`, from the device.

        Returns:
          how many of them were skipped.

        Raises:
          FloatingPointError: too many steps in a row were skipped, or a step whose metrics are not finite was not.
        """
        begin_s = time.perf_counter()
        rows = [np.array([scalar.numpy() for scalar in metrics]) for metrics in self.pending]
        self.stepped_s += time.perf_counter() - begin_s  # waiting for the device is the time of the steps
        for row, step in zip(rows, range(last_step - len(rows) + 1, last_step + 1), strict=True):
            self._count(row, step)
        self.pending.clear()
        num_counted = sum(not row[SKIPPED] for row in rows)
        return len(rows) - num_counted

    def _count(self, row: np.ndarray, step: int) -> None:
        skipped = row[SKIPPED] > 0
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        if self.skipped_in_a_row > self._max_skipped_steps or not (skipped or np.isfinite(row).all()):
            metrics = dict(zip(StepMetrics._fields, row.tolist(), strict=True))
            raise FloatingPointError(
                f"step {step}: the loss or the gradient is not finite ({metrics}), in {self.skipped_in_a_row} steps in "
                "a row; lower optimizer.learning_rate or set optimizer.clip_norm"
            )
        if skipped:
            self._num_skipped += 1
        else:
            self._rows.append(row)

    def read(self) -> dict[str, float] | None:
        """Returns means over the checked steps since the last log, and resets the meter; None if no step counts."""
        if not self._rows:
            return None
        rows = np.array(self._rows)  # [steps, metrics]
        means = dict(zip(StepMetrics._fields, rows.mean(0).tolist(), strict=True))
        means["skipped"] = float(self._num_skipped)
        num_timed = len(rows) + self._num_skipped - self._num_untimed
        means["images_per_s"] = num_timed * self._global_batch_size / self.stepped_s
        means["data_wait_fraction"] = self.waited_s / self.stepped_s
        self._reset()
        return means
