"""Exports a run's metrics through Ray's Prometheus endpoint: step, loss, throughput, validation, checkpoints, restarts.

Ray serves them on the metrics port of every node (scraped by `ray metrics launch-prometheus` or KubeRay's PodMonitor)
with the prefix `ray_`; `cluster/deploy/grafana/training.json` is a dashboard for them. Only rank 0 sets them. The tag
`run` is the run's name.
"""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

from textscanner.config import BEST_METRIC

TAGS = ("run",)
STEP = "textscanner_step"
LOSS = "textscanner_loss"
IMAGES_PER_SECOND = "textscanner_images_per_second"
DATA_WAIT_FRACTION = "textscanner_data_wait_fraction"
GRADIENT_NORM = "textscanner_gradient_norm"
WORD_ACCURACY = "textscanner_word_accuracy"
CHECKPOINT_SECONDS = "textscanner_checkpoint_seconds"
RESTARTS = "textscanner_restarts"

DESCRIPTIONS = {
    STEP: "Training steps done",
    LOSS: "Mean training loss since the last log",
    IMAGES_PER_SECOND: "Training throughput over all workers",
    DATA_WAIT_FRACTION: "Fraction of the time that steps waited for data, 0 to 1",
    GRADIENT_NORM: "Global norm of the summed gradient before clipping",
    WORD_ACCURACY: "Fraction of validation words read correctly, 0 to 1",
    CHECKPOINT_SECONDS: "Duration of the last checkpoint upload",
    RESTARTS: "Number of times the run was resumed from a checkpoint",
}
# Which metric of `training_loop` each gauge shows.
LOOP_METRICS = {
    LOSS: "loss",
    IMAGES_PER_SECOND: "images_per_s",
    DATA_WAIT_FRACTION: "data_wait_fraction",
    GRADIENT_NORM: "gradient_norm",
}


class RunMetrics:
    """The gauges of one run.

    Args:
      run: the run's name.
      resumed: whether the run starts from a checkpoint, which counts as a restart.
    """

    def __init__(self, run: str, resumed: bool) -> None:
        self._tags = {"run": run}
        self._gauges = {name: Gauge(name, text, TAGS) for name, text in DESCRIPTIONS.items() if name != RESTARTS}
        restarts = Counter(RESTARTS, DESCRIPTIONS[RESTARTS], TAGS)
        if resumed:
            restarts.inc(1, self._tags)

    def progress(self, step: int, metrics: Mapping[str, float]) -> None:
        """Sets the step and what `training_loop` measured up to it."""
        self._gauges[STEP].set(step, self._tags)
        for name, key in LOOP_METRICS.items():
            self._gauges[name].set(metrics[key], self._tags)

    def validated(self, metrics: Mapping[str, float]) -> None:
        """Sets the word accuracy over all validation sets."""
        self._gauges[WORD_ACCURACY].set(metrics[BEST_METRIC], self._tags)

    def saved(self, seconds: float) -> None:
        """Sets the duration of a checkpoint upload."""
        self._gauges[CHECKPOINT_SECONDS].set(seconds, self._tags)
