"""A sweep as it runs: Tune's callback that keeps the results in storage up to date and shows them to a person."""

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
from cluster.tune.results import Point, SweepResults, TrialRecord, load_results
from cluster.tune.search_space import SearchSpace

SHOWN_TRIALS = 8


class SweepCallback(tune.Callback):
    """Records what trials report. Tune saves it with its own state: what lives only in a process stays out of that."""

    def __init__(
        self,
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
        """Takes up what the sweep has found already, and begins to show it."""
        self._results = load_results(self._layout) or SweepResults(self._metric, self._mode)
        self._earlier_s, self._begin_s = self._results.elapsed_s, time.monotonic()
        console = Console(stderr=True)
        if console.is_terminal:
            self._live = Live(get_renderable=self._picture, console=console, refresh_per_second=1)
            self._live.start()

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial begins, or goes on."""
        record = self._record(trial)
        record.state, record.error = "running", ""
        spent_s = record.last.seconds if record.last else 0.0
        self._trial_begin_s.setdefault(trial.trial_id, time.monotonic() - spent_s)
        self._keep()

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        """A validation."""
        if self._metric not in result:
            return
        record = self._record(trial)
        seconds = time.monotonic() - self._trial_begin_s.get(trial.trial_id, time.monotonic())
        point = Point(int(result["step"]), float(result[self._metric]), seconds, str(result["checkpoint"]))
        if all(p.step != point.step for p in record.points):
            record.add(point)
            self._say(f"{trial.trial_id}  step {point.step}/{self._num_steps}  {self._metric} {point.value:.3f}")
        self._keep()

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial is over: at its last step, or stopped by the scheduler."""
        record = self._record(trial)
        whole = record.last is not None and record.last.step >= self._num_steps
        record.state = "finished" if whole else "stopped"
        if not whole and record.last:
            self._say(f"{trial.trial_id}  stopped after step {record.last.step}")
        self._keep()

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial failed and is tried again."""
        self._failed(trial, "waiting")

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial failed for the last time."""
        self._failed(trial, "failed")

    def on_experiment_end(self, trials: list, **info: Any) -> None:
        """Nothing runs any more; what the budget cut off was stopped, what a dead driver did not hand on is gone."""
        known = {trial.trial_id for trial in trials}
        self._results.trials = [record for record in self._results.trials if record.trial in known or record.points]
        for record in self._results.trials:
            if record.state in ("running", "waiting"):
                record.state = "stopped" if record.points else "waiting"
        self._keep()
        if self._live:
            self._live.stop()

    def _failed(self, trial: Any, state: Any) -> None:
        record = self._record(trial)
        record.state, record.failures = state, record.failures + 1
        record.error = _reason(trial)
        self._trial_begin_s.pop(trial.trial_id, None)
        self._say(f"{trial.trial_id}  failed{', trying again' if state == 'waiting' else ''}: {record.error}")
        self._keep()

    def _record(self, trial: Any) -> TrialRecord:
        """The trial's record; its sample is looked at anew, population based training changes it."""
        record = self._results.of(trial.trial_id)
        if record is None:
            record = TrialRecord(trial.trial_id, {})
            self._results.trials.append(record)
        record.sample = self._space.active(dict(trial.config))
        return record

    def _elapsed_s(self) -> float:
        return self._earlier_s + time.monotonic() - self._begin_s

    def _keep(self) -> None:
        self._results.elapsed_s = self._elapsed_s()
        try:
            self._results.save(self._layout)
        except StorageError as error:  # the next change writes everything again
            self._say(f"results not written: {error}")

    def _say(self, sentence: str) -> None:
        if self._live is None:
            print(sentence, file=sys.stderr, flush=True)

    def _picture(self) -> RenderableType:
        results = self._results
        counts = ", ".join(
            f"{results.count(state)} {state}"
            for state in ("running", "finished", "stopped", "failed")
            if results.count(state)
        )
        left = ""
        if self._budget_s is not None:
            left = f", {max(0.0, self._budget_s - self._elapsed_s()) / 60:.0f} min of the budget left"
        return Group(Text(f"{len(results.trials)} of {self._num_trials} trials: {counts}{left}"), self._table())

    def _table(self) -> Table:
        results = self._results
        table = Table("trial", "state", "step", self._metric, "changed", box=None)
        running = [record for record in results.trials if record.state == "running"]
        shown = [*results.ranked()[:SHOWN_TRIALS], *running]
        for record in dict.fromkeys(record.trial for record in shown):
            found = results.of(record)
            assert found is not None
            best, last = found.best(self._mode), found.last
            told = "  ".join(f"{key.partition('.')[2]}={_short(value)}" for key, value in found.sample.items())
            value = f"{best.value:.3f}" if best else ""
            table.add_row(found.trial, found.state, str(last.step if last else 0), value, told)
        return table


class Budget(tune.Stopper):
    """Ends a sweep after so many seconds of work, those before a restart counted."""

    def __init__(self, layout: SweepLayout, budget_s: float) -> None:
        self._layout, self._budget_s = layout, budget_s
        self._end_s: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_end_s": None}

    def __call__(self, trial_id: str, result: dict) -> bool:
        """No trial is stopped on its own."""
        return False

    def stop_all(self) -> bool:
        """Whether the time is up."""
        if self._end_s is None:
            results = load_results(self._layout)
            self._end_s = time.monotonic() + self._budget_s - (results.elapsed_s if results else 0.0)
        return time.monotonic() > self._end_s


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _reason(trial: Any) -> str:
    """The last line of what a trial raised; Tune has it on the driver's disk before it is in storage."""
    path = trial.error_file
    text = pathlib.Path(path).read_text() if path and pathlib.Path(path).exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("cluster.errors.RunError: ") if lines else "its process died"
