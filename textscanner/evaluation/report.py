"""`report.png` at the end of a run: curves of its metrics, and a sheet of validation words."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from textscanner.config import WORD_ACCURACY

ACCURACY_SUFFIX = f"/{WORD_ACCURACY}"
CASED_METRICS = ("val/word_accuracy_cased", "val/word_accuracy_exact")
FIGURE_WIDTH_IN = 12


class Panel(NamedTuple):
    """A plot of the report.

    Attributes:
      title: heading of the plot.
      metrics: names of its curves; empty for the word accuracy of every validation set, and with case over all sets.
      is_logarithmic: scale of the vertical axis.
      is_fraction: whether the vertical axis ends at 1.
    """

    title: str
    metrics: tuple[str, ...]
    is_logarithmic: bool = False
    is_fraction: bool = False


PANELS = (
    Panel(
        "loss",
        ("train/loss", "train/class_loss", "train/order_loss", "train/localization_loss"),
        is_logarithmic=True,
    ),
    Panel("word accuracy", (), is_fraction=True),
    Panel("images/s", ("train/images_per_s",)),
    Panel("fraction of time waiting for data", ("train/data_wait_fraction",), is_fraction=True),
)


class Series(NamedTuple):
    """One metric over a run: steps and values, float [points] each."""

    steps: np.ndarray
    values: np.ndarray


def read_series(metrics: str) -> dict[str, Series]:
    """Reads the text of a metrics.jsonl file; returns one series per metric."""
    points: dict[str, list[tuple[float, float]]] = {}
    for line in metrics.splitlines():
        row = json.loads(line)
        for name, value in row.items():
            if name not in ("step", "time_s"):
                points.setdefault(name, []).append((row["step"], value))
    return {name: Series(np.array(p)[:, 0], np.array(p)[:, 1]) for name, p in points.items()}


def draw_report(metrics: str, words: np.ndarray, title: str, path: str | pathlib.Path, *, case_sensitive: bool) -> None:
    """Draws the report.

    Args:
      metrics: the text of the run's metrics.jsonl.
      words: a sheet of readings, uint8 RGB [H, W, 3] (`visualization.sheet`).
      title: heading of the whole image.
      path: the PNG file to write.
      case_sensitive: of the charset; whether the accuracies with case have curves.
    """
    series = read_series(metrics)
    height_in = FIGURE_WIDTH_IN * words.shape[0] / words.shape[1]
    figure = Figure(figsize=(FIGURE_WIDTH_IN, 6.4 + height_in), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, 2, height_ratios=[3, 3, height_in])
    for i, panel in enumerate(PANELS):
        names = panel.metrics or _accuracy_names(series, case_sensitive)
        _draw_panel(figure.add_subplot(grid[i // 2, i % 2]), panel, names, series)
    axes = figure.add_subplot(grid[2, :])
    axes.imshow(words)
    axes.set_axis_off()
    axes.set_title("validation words, errors first (red)", loc="left", fontsize=10)
    figure.suptitle(title, x=0.01, ha="left", fontsize=14)
    figure.savefig(path, dpi=110)


def _accuracy_names(series: Mapping[str, Series], case_sensitive: bool) -> Sequence[str]:
    names = sorted(name for name in series if name.endswith(ACCURACY_SUFFIX))
    # With a single validation set, its curve and that over all sets are the same.
    names = names if len(names) > 2 else names[:1]
    return names + [name for name in CASED_METRICS if case_sensitive and name in series]


def _draw_panel(axes: Axes, panel: Panel, names: Sequence[str], series: Mapping[str, Series]) -> None:
    for name in names:
        if name in series:
            steps, values = series[name]
            label = name.removeprefix("train/").removeprefix("val/").removesuffix(ACCURACY_SUFFIX)
            marker = "o" if len(steps) < 30 else ""
            axes.plot(steps, values, label=label, linewidth=1.4, marker=marker, markersize=3)
    axes.set_title(panel.title, loc="left", fontsize=10)
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if panel.is_logarithmic:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1 if panel.is_fraction else None)
    if len(names) > 1:
        axes.legend(frameon=False, fontsize=8)
