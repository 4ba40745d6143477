"""What a sweep found: a record per trial with its curve, kept in storage as results.json and as flat tables.

The records are the sweep's memory across a killed driver: the table, the report and the winner are all made from them.
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

State = Literal["waiting", "running", "finished", "stopped", "failed"]


@dataclasses.dataclass(frozen=True)
class Point:
    """A validation of a trial: steps done, the metric, seconds since the trial began, its checkpoint's URI."""

    step: int
    value: float
    seconds: float
    checkpoint: str


@dataclasses.dataclass
class TrialRecord:
    """What is known of a trial.

    Attributes:
      trial: Tune's id, the name of its run's folder.
      sample: the values that it was given, without those whose condition is not met.
      state: `stopped` is by the scheduler, before the last step.
      error: why it failed.
      failures: how often it failed; fewer than the retries if it finished after all.
    """

    trial: str
    sample: Sample
    state: State = "waiting"
    points: list[Point] = dataclasses.field(default_factory=list)
    error: str = ""
    failures: int = 0

    @property
    def last(self) -> Point | None:
        """The newest validation."""
        return max(self.points, key=lambda p: p.step, default=None)

    def best(self, mode: str) -> Point | None:
        """The best validation, the newest of equals."""
        sign = 1 if mode == "max" else -1
        return max(self.points, key=lambda p: (sign * p.value, p.step), default=None)

    def add(self, point: Point) -> None:
        """Adds a validation, in place of an earlier one of the same step."""
        kept = [p for p in self.points if p.step != point.step]
        self.points = sorted([*kept, point], key=lambda p: p.step)


@dataclasses.dataclass
class SweepResults:
    """All trials of a sweep, in the order in which they began.

    Attributes:
      metric, mode: what best means.
      elapsed_s: seconds that drivers have spent on the sweep.
    """

    metric: str
    mode: str
    trials: list[TrialRecord] = dataclasses.field(default_factory=list)
    elapsed_s: float = 0.0

    def of(self, trial: str) -> TrialRecord | None:
        """The record of a trial."""
        return next((record for record in self.trials if record.trial == trial), None)

    def count(self, state: State) -> int:
        """How many trials are in a state."""
        return sum(record.state == state for record in self.trials)

    def ranked(self) -> list[TrialRecord]:
        """The trials that were validated at all, the best first; of equals the one that began first."""
        sign = -1 if self.mode == "max" else 1

        def key(record: TrialRecord) -> float:
            best = record.best(self.mode)
            assert best is not None
            return sign * best.value

        return sorted((record for record in self.trials if record.points), key=key)

    def save(self, layout: SweepLayout) -> None:
        """Writes results.json and the tables."""
        open_uri(layout.results).write_bytes(json.dumps(dataclasses.asdict(self), indent=1).encode())
        table = self.table()
        open_uri(layout.table("csv")).write_bytes(_written(pyarrow.csv.write_csv, table))
        open_uri(layout.table("parquet")).write_bytes(_written(pyarrow.parquet.write_table, table))

    def table(self) -> pyarrow.Table:
        """A row per trial, the best first, the ones without a validation last."""
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
    """What a sweep has found so far; None before its first result."""
    place = open_uri(layout.results)
    if not place.exists():
        return None
    told = json.loads(place.read_bytes())
    trials = [
        TrialRecord(**(record | {"points": [Point(**point) for point in record["points"]]}))
        for record in told.pop("trials")
    ]
    return SweepResults(trials=trials, **told)


def _written(write: Any, table: pyarrow.Table) -> bytes:
    buffer = io.BytesIO()
    write(table, buffer)
    return buffer.getvalue()
