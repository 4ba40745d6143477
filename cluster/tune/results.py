"""Results of a sweep: a record per trial with its learning curve, stored as results.json and as flat tables.

The table, the report and the best trial are made from these records. They survive a killed driver.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterable
from typing import Any, Literal

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from cluster.storage.location import open_uri
from cluster.storage.run_layout import SweepLayout
from cluster.tune.search_space import Sample

TrialState = Literal["waiting", "running", "finished", "stopped", "failed"]
"""`stopped` is before the last step: by the scheduler, or at the end of the time budget."""


@dataclasses.dataclass(frozen=True)
class Point:
    """A validation of a trial.

    Attributes:
      step: training steps done.
      value: the sweep's metric.
      seconds: since the trial started.
      checkpoint: URI of the checkpoint of that step.
    """

    step: int
    value: float
    seconds: float
    checkpoint: str


@dataclasses.dataclass
class TrialRecord:
    """A trial.

    Attributes:
      trial: Tune's id, and the name of its run folder.
      sample: its sampled values, without those whose condition is not met.
      points: its validations, by step.
      error: why it failed; empty if it did not, or was retried.
      failures: number of failures, retries included.
    """

    trial: str
    sample: Sample
    state: TrialState = "waiting"
    points: list[Point] = dataclasses.field(default_factory=list)
    error: str = ""
    failures: int = 0

    @property
    def last(self) -> Point | None:
        """The newest validation."""
        return max(self.points, key=lambda p: p.step, default=None)

    def best(self, mode: str) -> Point | None:
        """The best validation; among equals the newest. `mode` is `max` or `min`."""
        sign = 1 if mode == "max" else -1
        return max(self.points, key=lambda p: (sign * p.value, p.step), default=None)

    def add(self, point: Point) -> None:
        """Adds a validation; it replaces one of the same step, which a resumed trial repeats."""
        other_points = [p for p in self.points if p.step != point.step]
        self.points = sorted([*other_points, point], key=lambda p: p.step)


@dataclasses.dataclass
class SweepResults:
    """All trials of a sweep, in the order in which they started.

    Attributes:
      metric: validation metric that trials are compared by.
      mode: `max` or `min`.
      elapsed_s: seconds that drivers have spent on the sweep, before restarts included.
    """

    metric: str
    mode: str
    trials: list[TrialRecord] = dataclasses.field(default_factory=list)
    elapsed_s: float = 0.0

    def record_of(self, trial: str) -> TrialRecord | None:
        return next((record for record in self.trials if record.trial == trial), None)

    def count(self, state: TrialState) -> int:
        return sum(record.state == state for record in self.trials)

    def ranked(self) -> list[TrialRecord]:
        """The trials with at least one validation, the best first; among equals the one that started first."""
        sign = -1 if self.mode == "max" else 1

        def key(record: TrialRecord) -> float:
            best = record.best(self.mode)
            assert best is not None, "only trials with points are ranked"
            return sign * best.value

        return sorted((record for record in self.trials if record.points), key=key)

    def save(self, layout: SweepLayout) -> None:
        """Writes results.json, trials.csv and trials.parquet into the sweep's folder."""
        open_uri(layout.results).write_bytes(json.dumps(dataclasses.asdict(self), indent=1).encode())
        table = self.table()
        open_uri(layout.table("csv")).write_bytes(_serialize(pyarrow.csv.write_csv, table))
        open_uri(layout.table("parquet")).write_bytes(_serialize(pyarrow.parquet.write_table, table))

    def table(self) -> pyarrow.Table:
        """A row per trial, the best first, those without a validation last."""
        ranked = self.ranked()
        rows = [*ranked, *(record for record in self.trials if not record.points)]
        keys = sorted({key for record in rows for key in record.sample})
        return pyarrow.Table.from_pylist([self._row(record, keys) for record in rows]) if rows else pyarrow.table({})

    def _row(self, record: TrialRecord, keys: Iterable[str]) -> dict[str, Any]:
        best, last = record.best(self.mode), record.last
        return {
            "trial": record.trial,
            "state": record.state,
            self.metric: best.value if best else None,
            "best_step": best.step if best else None,
            "steps": last.step if last else 0,
            "seconds": round(last.seconds, 1) if last else None,
            "failures": record.failures,
            **{key: None if key not in record.sample else str(record.sample[key]) for key in keys},
            "error": record.error,
            "checkpoint": best.checkpoint if best else "",
        }


def load_results(layout: SweepLayout) -> SweepResults | None:
    """The results of a sweep so far; None before the first result."""
    location = open_uri(layout.results)
    if not location.exists():
        return None
    values = json.loads(location.read_bytes())
    trials = [
        TrialRecord(**(record | {"points": [Point(**point) for point in record["points"]]}))
        for record in values.pop("trials")
    ]
    return SweepResults(trials=trials, **values)


def _serialize(write: Any, table: pyarrow.Table) -> bytes:
    buffer = io.BytesIO()
    write(table, buffer)
    return buffer.getvalue()
