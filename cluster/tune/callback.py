"""Tune's callback of a running sweep: keeps the results in storage up to date and shows them in the terminal."""

from __future__ import annotations

import pathlib
import sys
import time
from typing import Any

from ray import tune
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.errors import StorageError
from cluster.storage.run_layout import SweepLayout
from cluster.tune.results import Point, SweepResults, TrialRecord, TrialState, load_results
from cluster.tune.search_space import SearchSpace

NUM_SHOWN_TRIALS = 8


class SweepCallback(tune.Callback):
    """Records what trials report.

    Tune pickles it with its own state; what belongs to one process (display, results, clocks) is left out.

    Args:
      num_steps: last step of a trial that is not stopped.
      budget_s: time limit of the sweep, for the display; None for no limit.
    """

    def __init__(
        self,
        *,
        layout: SweepLayout,
        space: SearchSpace,
        metric: str,
        mode: str,
        num_trials: int,
        num_steps: int,
        budget_s: float | None,
    ) -> None:
        self._layout, self._space = layout, space
        self._metric, self._mode = metric, mode
        self._num_trials, self._num_steps, self._budget_s = num_trials, num_steps, budget_s
        self._live: Live | None = None
        self._results = SweepResults(metric, mode)
        self._trial_begin_s: dict[str, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_live": None, "_results": SweepResults(self._metric, self._mode), "_trial_begin_s": {}}

    def setup(
        self, stop: Any = None, num_samples: int | None = None, total_num_samples: int | None = None, **info: Any
    ) -> None:
        """Loads the results from before a restart, and starts the display."""
        self._results = load_results(self._layout) or SweepResults(self._metric, self._mode)
        self._previous_s, self._begin_s = self._results.elapsed_s, time.monotonic()
        console = Console(stderr=True)
        if console.is_terminal:
            self._live = Live(get_renderable=self._display, console=console, refresh_per_second=1)
            self._live.start()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._record(trial)
        record.state, record.error = "running", ""
        previous_s = record.last.seconds if record.last else 0.0  # a resumed trial: its time before the restart
        self._trial_begin_s.setdefault(trial.trial_id, time.monotonic() - previous_s)
        self._save()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if self._metric not in result:
            return
        record = self._record(trial)
        seconds = time.monotonic() - self._trial_begin_s.get(trial.trial_id, time.monotonic())
        point = Point(int(result["step"]), float(result[self._metric]), seconds, str(result["checkpoint"]))
        if all(p.step != point.step for p in record.points):  # a resumed trial reports its old checkpoints again
            record.add(point)
            self._print(f"{trial.trial_id}  step {point.step}/{self._num_steps}  {self._metric} {point.value:.3f}")
        self._save()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has ended without an error: at its last step, or stopped by the scheduler."""
        record = self._record(trial)
        is_finished = record.last is not None and record.last.step >= self._num_steps
        record.state = "finished" if is_finished else "stopped"
        if not is_finished and record.last:
            self._print(f"{trial.trial_id}  stopped after step {record.last.step}")
        self._save()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has failed and will be retried."""
        self._record_failure(trial, "waiting")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has failed for the last time."""
        self._record_failure(trial, "failed")

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Marks trials that the time budget cut off as stopped, and drops records that Tune does not know.

        A driver that was killed may have recorded trials that it had not yet saved; Tune starts them under new ids.
        """
        known_ids = {trial.trial_id for trial in trials}
        self._results.trials = [r for r in self._results.trials if r.trial in known_ids or r.points]
        for record in self._results.trials:
            if record.state in ("running", "waiting"):
                record.state = "stopped" if record.points else "waiting"
        self._save()
        if self._live:
            self._live.stop()

    def _record_failure(self, trial: Any, state: TrialState) -> None:
        record = self._record(trial)
        record.state, record.failures = state, record.failures + 1
        record.error = _failure_message(trial)
        self._trial_begin_s.pop(trial.trial_id, None)
        self._print(f"{trial.trial_id}  failed{', will be retried' if state == 'waiting' else ''}: {record.error}")
        self._save()

    def _record(self, trial: Any) -> TrialRecord:
        """The trial's record, with its sample updated: PBT changes it."""
        record = self._results.record_of(trial.trial_id)
        if record is None:
            record = TrialRecord(trial.trial_id, {})
            self._results.trials.append(record)
        record.sample = self._space.active(dict(trial.config))
        return record

    def _elapsed_s(self) -> float:
        return self._previous_s + time.monotonic() - self._begin_s

    def _save(self) -> None:
        self._results.elapsed_s = self._elapsed_s()
        try:
            self._results.save(self._layout)
        except StorageError as error:  # the next change writes everything again
            self._print(f"results were not written: {error}")

    def _print(self, message: str) -> None:
        """Prints a line where there is no live table."""
        if self._live is None:
            print(message, file=sys.stderr, flush=True)

    def _display(self) -> RenderableType:
        results = self._results
        counts = ", ".join(
            f"{results.count(state)} {state}"
            for state in ("running", "finished", "stopped", "failed")
            if results.count(state)
        )
        budget = ""
        if self._budget_s is not None:
            budget = f", {max(0.0, self._budget_s - self._elapsed_s()) / 60:.0f} min of the budget left"
        return Group(Text(f"{len(results.trials)} of {self._num_trials} trials: {counts}{budget}"), self._table())

    def _table(self) -> Table:
        """The best trials and the running ones."""
        results = self._results
        table = Table("trial", "state", "step", self._metric, "sample", box=None)
        running = [record for record in results.trials if record.state == "running"]
        records = {record.trial: record for record in [*results.ranked()[:NUM_SHOWN_TRIALS], *running]}
        for record in records.values():
            best, last = record.best(self._mode), record.last
            sample = "  ".join(f"{key.partition('.')[2]}={_short(value)}" for key, value in record.sample.items())
            value = f"{best.value:.3f}" if best else ""
            table.add_row(record.trial, record.state, str(last.step if last else 0), value, sample)
        return table


class TimeBudget(tune.Stopper):
    """Ends a sweep after `budget_s` seconds, including the time before a restart."""

    def __init__(self, layout: SweepLayout, budget_s: float) -> None:
        self._layout, self._budget_s = layout, budget_s
        self._end_s: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_end_s": None}  # by the clock of this process

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False  # does not stop individual trials

    def stop_all(self) -> bool:
        if self._end_s is None:
            results = load_results(self._layout)
            self._end_s = time.monotonic() + self._budget_s - (results.elapsed_s if results else 0.0)
        return time.monotonic() > self._end_s


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _failure_message(trial: Any) -> str:
    """The last line of the trial's error, from Tune's file on the driver's disk."""
    path = trial.error_file
    text = pathlib.Path(path).read_text() if path and pathlib.Path(path).exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("cluster.errors.RunError: ") if lines else "its process died"
