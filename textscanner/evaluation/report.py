"""`report.png` at the end of a run: its curves, and a sheet of words read right and wrong."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PANELS = (
    ("loss", ("train/loss", "train/class_loss", "train/order_loss", "train/localization_loss")),
    ("word accuracy", ()),
    ("images/s", ("train/images_per_s",)),
    ("share of the time waiting for data", ("train/data_wait_fraction",)),
)


def read_series(metrics: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Steps and values per metric, from the text of a metrics.jsonl."""
    points: dict[str, list[tuple[float, float]]] = {}
    for line in metrics.splitlines():
        row = json.loads(line)
        for name, value in row.items():
            if name not in ("step", "time_s"):
                points.setdefault(name, []).append((row["step"], value))
    return {name: (np.array(p)[:, 0], np.array(p)[:, 1]) for name, p in points.items()}


def draw_report(metrics: str, words: np.ndarray, title: str, path: str | pathlib.Path) -> None:
    """Writes the picture.

    Args:
      metrics: the text of the run's metrics.jsonl.
      words: a sheet of readings, uint8 RGB (textscanner.evaluation.visualization.sheet).
      title: said above.
      path: a .png file.
    """
    series = read_series(metrics)
    height = 12 * words.shape[0] / words.shape[1]
    figure = Figure(figsize=(12, 6.4 + height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, 2, height_ratios=[3, 3, height])
    for i, (name, keys) in enumerate(PANELS):
        axes = figure.add_subplot(grid[i // 2, i % 2])
        _draw_panel(axes, name, keys or _accuracies(series), series)
    axes = figure.add_subplot(grid[2, :])
    axes.imshow(words)
    axes.set_axis_off()
    axes.set_title("words never seen in training: misses in red come first", loc="left", fontsize=10)
    figure.suptitle(title, x=0.01, ha="left", fontsize=14)
    figure.savefig(path, dpi=110)


def _accuracies(series: dict) -> Sequence[str]:
    named = sorted(n for n in series if n.endswith("/word_accuracy"))
    # With one data set, its curve and the total are the same.
    return named if len(named) > 2 else named[:1]


def _draw_panel(axes, name: str, keys: Sequence[str], series: dict) -> None:  # noqa: ANN001
    for key in keys:
        if key in series:
            steps, values = series[key]
            short = key.removeprefix("train/").removeprefix("val/").removesuffix("/word_accuracy")
            marker = "o" if len(steps) < 30 else ""
            axes.plot(steps, values, label=short, linewidth=1.4, marker=marker, markersize=3)
    axes.set_title(name, loc="left", fontsize=10)
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if name == "loss":
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1 if "share" in name or "accuracy" in name else None)
    if len(keys) > 1:
        axes.legend(frameon=False, fontsize=8)
