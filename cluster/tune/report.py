"""report.html: a sweep explained on one page that opens without a server or a network.

Curves of all trials with the stops marked; parallel coordinates; how much each key mattered (PED-ANOVA by Optuna,
Watanabe et al., 2023: which keys separate the better half of the trials from the rest); what a result cost; the winner
as a command.
"""

from __future__ import annotations

import html
import math
from typing import Any

from cluster.storage.location import open_uri
from cluster.tune.results import SweepResults, TrialRecord
from cluster.tune.search_space import Domain
from cluster.tune.sweep import Sweep, Winner, distributions

COLOURS = {"finished": "#1a7f37", "stopped": "#9aa4af", "failed": "#cf222e", "running": "#0969da", "waiting": "#9aa4af"}
MIN_TRIALS_FOR_IMPORTANCE = 4
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#1f2328}"
    "h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}pre{background:#f6f8fa;padding:1em;white-space:pre-wrap}"
    "table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}"
    "td,th{padding:.25em .7em;border-bottom:1px solid #d0d7de;text-align:right;white-space:nowrap}"
)


def write_report(sweep: Sweep, results: SweepResults, best: Winner, command: str) -> str:
    """Writes the page into the sweep's folder; returns its URI."""
    open_uri(sweep.layout.report).write_bytes(page(sweep, results, best, command).encode())
    return sweep.layout.report


def page(sweep: Sweep, results: SweepResults, best: Winner, command: str) -> str:
    """The page as HTML."""
    counts = ", ".join(f"{n} {state}" for state in ("finished", "stopped", "failed") if (n := results.count(state)))
    figures = [
        ("How the trials learnt", curves(sweep, results)),
        ("Which values went with which result", parallel_coordinates(sweep, results)),
        ("What mattered", importance_bars(sweep, results)),
        ("What a result cost", costs(results)),
    ]
    parts = [
        f"<!doctype html><meta charset='utf-8'><title>{html.escape(sweep.name)}</title><style>{STYLE}</style>",
        f"<h1>Sweep {html.escape(sweep.name)}</h1>",
        f"<p>{len(results.trials)} trials of {html.escape(sweep.config.preset)}: {counts}. {sweep.scheduler}, "
        f"{sweep.search} search, {results.elapsed_s / 60:.0f} minutes. Best {html.escape(sweep.metric)} "
        f"<b>{best.value:.4f}</b> at step {best.step} of trial {best.trial}.</p>",
        f"<h2>The winner, as a command</h2><pre>{html.escape(command)}</pre>",
    ]
    with_script = True  # the drawing library goes into the page once
    for title, figure in figures:
        if figure is None:
            continue
        parts.append(f"<h2>{title}</h2>")
        parts.append(figure.to_html(full_html=False, include_plotlyjs=with_script, config={"displaylogo": False}))
        with_script = False
    return "\n".join([*parts, "<h2>All trials</h2>", _table(results)])


def curves(sweep: Sweep, results: SweepResults) -> Any:
    """The metric over the steps, a line per trial; a cross where the scheduler stopped it."""
    figure = _figure("step", sweep.metric)
    winner = results.ranked()[0].trial
    for record in results.trials:
        if not record.points:
            continue
        steps, values = [p.step for p in record.points], [p.value for p in record.points]
        colour = "#d4a017" if record.trial == winner else COLOURS[record.state]
        marks = ["circle"] * (len(steps) - 1) + ["x" if record.state in ("stopped", "failed") else "circle"]
        figure.add_scatter(
            x=steps,
            y=values,
            mode="lines+markers",
            name=f"{record.trial} {record.state}",
            line={"color": colour, "width": 3 if record.trial == winner else 1},
            marker={"symbol": marks, "size": 8},
            hovertext="<br>".join(f"{k}={v}" for k, v in record.sample.items()),
        )
    return figure


def parallel_coordinates(sweep: Sweep, results: SweepResults) -> Any:
    """An axis per key and one for the result, a line per trial."""
    import plotly.graph_objects

    ranked = results.ranked()
    values = [_value(results, record) for record in ranked]
    axes = [_axis(key, domain, ranked) for key, domain in sweep.space.domains.items()]
    axes.append({"label": sweep.metric, "values": values})
    line = {"color": values, "colorscale": "Viridis", "reversescale": results.mode == "min"}
    figure = plotly.graph_objects.Figure(plotly.graph_objects.Parcoords(line=line, dimensions=axes))
    figure.update_layout(height=420, margin={"l": 90, "r": 60, "t": 60, "b": 30})
    return figure


def _axis(key: str, domain: Domain, ranked: list[TrialRecord]) -> dict[str, Any]:
    """An axis with a place per choice, or a logarithm, or the numbers; a trial without the key lies at the bottom."""
    found = [record.sample.get(key) for record in ranked]
    label = key.partition(".")[2]
    if domain.kind == "choice":
        ticks = {str(value): i for i, value in enumerate(domain.values)}
        return {
            "label": label,
            "values": [ticks.get(str(value), 0) for value in found],
            "tickvals": list(ticks.values()),
            "ticktext": list(ticks),
        }
    low, high = domain.bounds
    numbers = [low if value is None else float(value) for value in found]
    if domain.kind != "loguniform":
        return {"label": label, "values": numbers, "range": [low, high]}
    ends = [math.log10(low), math.log10(high)]
    ticks_at = [ends[0] + (ends[1] - ends[0]) * i / 4 for i in range(5)]
    return {
        "label": label,
        "values": [math.log10(v) for v in numbers],
        "range": ends,
        "tickvals": ticks_at,
        "ticktext": [f"{10**t:.2g}" for t in ticks_at],
    }


def importances(sweep: Sweep, results: SweepResults) -> dict[str, float]:
    """How much each key mattered, shares that sum to 1, most first; empty where there are too few trials to tell."""
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    whole = [record for record in results.ranked() if set(record.sample) == set(sweep.space.domains)]
    if len(whole) < MIN_TRIALS_FOR_IMPORTANCE or len(sweep.space.domains) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize" if results.mode == "max" else "minimize")
    known = distributions(sweep.space)
    for record in whole:
        study.add_trial(
            optuna.trial.create_trial(params=record.sample, distributions=known, value=_value(results, record))
        )
    evaluator = PedAnovaImportanceEvaluator(target_quantile=0.5)
    found = get_param_importances(study, evaluator=evaluator)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def importance_bars(sweep: Sweep, results: SweepResults) -> Any:
    """Bars of `importances`, or None."""
    found = importances(sweep, results)
    if not found:
        return None
    figure = _figure("share", "")
    figure.add_bar(x=list(found.values())[::-1], y=list(found)[::-1], orientation="h", marker={"color": "#0969da"})
    figure.update_layout(height=120 + 28 * len(found), margin={"l": 220})
    return figure


def costs(results: SweepResults) -> Any:
    """The best result of each trial over the seconds that it took."""
    figure = _figure("seconds", results.metric)
    for state in ("finished", "stopped", "failed"):
        records = [record for record in results.ranked() if record.state == state]
        if records:
            figure.add_scatter(
                x=[record.points[-1].seconds for record in records],
                y=[_value(results, record) for record in records],
                mode="markers",
                name=state,
                text=[record.trial for record in records],
                marker={"size": 11, "color": COLOURS[state], "symbol": "circle" if state == "finished" else "x"},
            )
    return figure


def _figure(x: str, y: str) -> Any:
    import plotly.graph_objects

    figure = plotly.graph_objects.Figure()
    figure.update_layout(
        template="plotly_white", xaxis_title=x, yaxis_title=y, height=440, margin={"l": 70, "r": 20, "t": 20, "b": 50}
    )
    return figure


def _value(results: SweepResults, record: TrialRecord) -> float:
    best = record.best(results.mode)
    assert best is not None
    return best.value


def _table(results: SweepResults) -> str:
    table = results.table().to_pylist()
    heads = "".join(f"<th>{html.escape(str(name))}</th>" for name in table[0])
    rows = ("".join(f"<td>{html.escape(_cell(value))}</td>" for value in row.values()) for row in table)
    return f"<table><tr>{heads}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
