"""A run's figures at Ray's Prometheus endpoint: step, loss, speed, waiting, checkpoints, restarts.

Ray exports what its processes set on every node's metrics port (`ray metrics launch-prometheus`, or KubeRay's
PodMonitor); `cluster/deploy/grafana/training.json` draws them. Rank 0 sets them; each carries the run's name.
"""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

from textscanner.config import BEST_METRIC

# name: (what `training_loop` calls it, what it is)
STEP_GAUGES = {
    "textscanner_loss": ("loss", "Mean loss since the last log"),
    "textscanner_images_per_second": ("images_per_s", "Images trained on per second, over all workers"),
    "textscanner_data_wait_fraction": (
        "data_wait_fraction",
        "Share of the time that a step waited for its batch, 0 to 1",
    ),
    "textscanner_gradient_norm": ("gradient_norm", "Global norm of the summed gradient before clipping"),
}
TAGS = ("run",)


class RunMetrics:
    """The gauges of one run."""

    def __init__(self, run: str, resumed: bool) -> None:
        self._tags = {"run": run}
        self._step = Gauge("textscanner_step", "Steps done", TAGS)
        self._steps = {name: Gauge(name, text, TAGS) for name, (_, text) in STEP_GAUGES.items()}
        self._accuracy = Gauge("textscanner_word_accuracy", "Share of validation words read right, 0 to 1", TAGS)
        self._saving = Gauge("textscanner_checkpoint_seconds", "Seconds that the last checkpoint's upload took", TAGS)
        restarts = Counter("textscanner_restarts", "How often the run went on from a checkpoint", TAGS)
        if resumed:
            restarts.inc(1, self._tags)

    def progress(self, step: int, metrics: Mapping[str, float]) -> None:
        """What the loop measured up to a step."""
        self._step.set(step, self._tags)
        for name, (key, _) in STEP_GAUGES.items():
            self._steps[name].set(metrics[key], self._tags)

    def validated(self, metrics: Mapping[str, float]) -> None:
        """What a validation gave."""
        self._accuracy.set(metrics[BEST_METRIC], self._tags)

    def saved(self, seconds: float) -> None:
        """How long an upload took."""
        self._saving.set(seconds, self._tags)
