"""report.html: a sweep on one self-contained page, which opens without a server or a network.

It has the learning curves of all trials with early stops marked, parallel coordinates, the importance of each key
(Optuna's PED-ANOVA, Watanabe et al., 2023: which keys separate the better half of the trials from the rest), the
metric over the time that each trial took, and the best trial as a command.
"""

from __future__ import annotations

import html
import math
from typing import Any

from cluster.storage.location import open_uri
from cluster.tune.results import SweepResults, TrialRecord
from cluster.tune.search import optuna_distributions
from cluster.tune.search_space import Domain
from cluster.tune.sweep import BestTrial, Sweep

STATE_COLORS = {
    "finished": "#1a7f37",
    "stopped": "#9aa4af",
    "failed": "#cf222e",
    "running": "#0969da",
    "waiting": "#9aa4af",
}
MIN_TRIALS_FOR_IMPORTANCE = 4
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#1f2328}"
    "h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}pre{background:#f6f8fa;padding:1em;white-space:pre-wrap}"
    "table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}"
    "td,th{padding:.25em .7em;border-bottom:1px solid #d0d7de;text-align:right;white-space:nowrap}"
)


def write_report(sweep: Sweep, results: SweepResults, best: BestTrial, command: str) -> str:
    """Writes the page into the sweep's folder; returns its URI."""
    open_uri(sweep.layout.report).write_bytes(page(sweep, results, best, command).encode())
    return sweep.layout.report


def page(sweep: Sweep, results: SweepResults, best: BestTrial, command: str) -> str:
    """The page as HTML."""
    counts = ", ".join(f"{n} {state}" for state in ("finished", "stopped", "failed") if (n := results.count(state)))
    figures = [
        ("Learning curves", learning_curves(sweep, results)),
        ("Samples and their metrics", parallel_coordinates(sweep, results)),
        ("Importance of each key", importance_bars(sweep, results)),
        ("Metric over time", metric_over_time(results)),
    ]
    parts = [
        f"<!doctype html><meta charset='utf-8'><title>{html.escape(sweep.name)}</title><style>{STYLE}</style>",
        f"<h1>Sweep {html.escape(sweep.name)}</h1>",
        f"<p>{len(results.trials)} trials of {html.escape(sweep.config.preset)}: {counts}. {sweep.scheduler}, "
        f"{sweep.search} search, {results.elapsed_s / 60:.0f} minutes. Best {html.escape(sweep.metric)} "
        f"<b>{best.value:.4f}</b> at step {best.step} of trial {best.trial}.</p>",
        f"<h2>Command that trains the best trial again</h2><pre>{html.escape(command)}</pre>",
    ]
    include_script = True  # plotly.js goes into the page once
    for title, figure in figures:
        if figure is None:
            continue
        parts.append(f"<h2>{title}</h2>")
        parts.append(figure.to_html(full_html=False, include_plotlyjs=include_script, config={"displaylogo": False}))
        include_script = False
    return "\n".join([*parts, "<h2>All trials</h2>", _table(results)])


def learning_curves(sweep: Sweep, results: SweepResults) -> Any:
    """The metric over the steps, one line per trial; a cross where the scheduler stopped it."""
    figure = _figure("step", sweep.metric)
    best_id = results.ranked()[0].trial
    for record in results.trials:
        if not record.points:
            continue
        steps, values = [p.step for p in record.points], [p.value for p in record.points]
        color = "#d4a017" if record.trial == best_id else STATE_COLORS[record.state]
        symbols = ["circle"] * (len(steps) - 1) + ["x" if record.state in ("stopped", "failed") else "circle"]
        figure.add_scatter(
            x=steps,
            y=values,
            mode="lines+markers",
            name=f"{record.trial} {record.state}",
            line={"color": color, "width": 3 if record.trial == best_id else 1},
            marker={"symbol": symbols, "size": 8},
            hovertext="<br>".join(f"{k}={v}" for k, v in record.sample.items()),
        )
    return figure


def parallel_coordinates(sweep: Sweep, results: SweepResults) -> Any:
    """An axis per key and one for the metric, one line per trial."""
    import plotly.graph_objects

    ranked = results.ranked()
    values = [_best_value(results, record) for record in ranked]
    axes = [_axis(key, domain, ranked) for key, domain in sweep.space.domains.items()]
    axes.append({"label": sweep.metric, "values": values})
    line = {"color": values, "colorscale": "Viridis", "reversescale": results.mode == "min"}
    figure = plotly.graph_objects.Figure(plotly.graph_objects.Parcoords(line=line, dimensions=axes))
    figure.update_layout(height=420, margin={"l": 90, "r": 60, "t": 60, "b": 30})
    return figure


def _axis(key: str, domain: Domain, ranked: list[TrialRecord]) -> dict[str, Any]:
    """Plotly's axis of a key: categories, a logarithmic or a linear scale; trials without the key lie at the bottom."""
    values = [record.sample.get(key) for record in ranked]
    label = key.partition(".")[2]
    if domain.kind == "choice":
        ticks = {str(value): i for i, value in enumerate(domain.values)}
        return {
            "label": label,
            "values": [ticks.get(str(value), 0) for value in values],
            "tickvals": list(ticks.values()),
            "ticktext": list(ticks),
        }
    low, high = domain.bounds
    numbers = [low if value is None else float(value) for value in values]
    if domain.kind != "loguniform":
        return {"label": label, "values": numbers, "range": [low, high]}
    log_low, log_high = math.log10(low), math.log10(high)
    exponents = [log_low + (log_high - log_low) * i / 4 for i in range(5)]
    return {
        "label": label,
        "values": [math.log10(v) for v in numbers],
        "range": [log_low, log_high],
        "tickvals": exponents,
        "ticktext": [f"{10**exponent:.2g}" for exponent in exponents],
    }


def importances(sweep: Sweep, results: SweepResults) -> dict[str, float]:
    """Importance of each key, fractions that sum to 1, the largest first; empty if there are too few trials."""
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    # PED-ANOVA needs all keys in every trial; conditional keys are missing in some.
    complete = [record for record in results.ranked() if set(record.sample) == set(sweep.space.domains)]
    if len(complete) < MIN_TRIALS_FOR_IMPORTANCE or len(sweep.space.domains) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize" if results.mode == "max" else "minimize")
    distributions = optuna_distributions(sweep.space)
    for record in complete:
        study.add_trial(
            optuna.trial.create_trial(
                params=record.sample, distributions=distributions, value=_best_value(results, record)
            )
        )
    evaluator = PedAnovaImportanceEvaluator(target_quantile=0.5)
    fractions = get_param_importances(study, evaluator=evaluator)
    return dict(sorted(fractions.items(), key=lambda item: -item[1]))


def importance_bars(sweep: Sweep, results: SweepResults) -> Any:
    """A bar chart of `importances`; None if that is empty."""
    fractions = importances(sweep, results)
    if not fractions:
        return None
    keys, values = list(fractions)[::-1], list(fractions.values())[::-1]  # plotly draws the first bar at the bottom
    figure = _figure("importance", "")
    figure.add_bar(x=values, y=keys, orientation="h", marker={"color": "#0969da"})
    figure.update_layout(height=120 + 28 * len(keys), margin={"l": 220})
    return figure


def metric_over_time(results: SweepResults) -> Any:
    """The best metric of each trial over the seconds that it took, a point per trial."""
    figure = _figure("seconds", results.metric)
    for state in ("finished", "stopped", "failed"):
        records = [record for record in results.ranked() if record.state == state]
        if records:
            figure.add_scatter(
                x=[record.points[-1].seconds for record in records],
                y=[_best_value(results, record) for record in records],
                mode="markers",
                name=state,
                text=[record.trial for record in records],
                marker={"size": 11, "color": STATE_COLORS[state], "symbol": "circle" if state == "finished" else "x"},
            )
    return figure


def _figure(x: str, y: str) -> Any:
    import plotly.graph_objects

    figure = plotly.graph_objects.Figure()
    figure.update_layout(
        template="plotly_white", xaxis_title=x, yaxis_title=y, height=440, margin={"l": 70, "r": 20, "t": 20, "b": 50}
    )
    return figure


def _best_value(results: SweepResults, record: TrialRecord) -> float:
    best = record.best(results.mode)
    assert best is not None, "only trials with a validation are drawn"
    return best.value


def _table(results: SweepResults) -> str:
    table = results.table().to_pylist()
    header = "".join(f"<th>{html.escape(str(name))}</th>" for name in table[0])
    rows = ("".join(f"<td>{html.escape(_cell(value))}</td>" for value in row.values()) for row in table)
    return f"<table><tr>{header}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
