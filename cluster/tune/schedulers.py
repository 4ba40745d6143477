"""Schedulers that know, when a sweep is resumed, what its trials had reached before, and when a run is over.

Tune saves its trials and its searcher, but hands a resumed sweep the scheduler as it was at the very start: the first
trial after a restart would pass every rung unopposed. Here each trial that is added is shown to the scheduler with the
results that storage has of it.
"""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, PopulationBasedTraining, TrialScheduler

from cluster.storage.run_layout import SweepLayout
from cluster.tune.results import load_results


class _Resumable:
    """Before a Tune scheduler among the bases."""

    _layout: SweepLayout

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A new trial, or one of before the restart, with what it had reached."""
        super().on_trial_add(tune_controller, trial)  # type: ignore[misc]
        results = load_results(self._layout)
        record = results.of(trial.trial_id) if results else None
        if results is None or record is None:
            return
        for point in record.points:  # what is decided about it now was decided then
            self.on_trial_result(tune_controller, trial, {"step": point.step, results.metric: point.value})  # type: ignore[attr-defined]


class ResumableASHA(_Resumable, ASHAScheduler):
    """ASHA (Li et al., 2018): at each rung the best share of the trials so far goes on."""

    def __init__(self, layout: SweepLayout, **settings: Any) -> None:
        super().__init__(**settings)
        self._layout = layout


class ResumableMedian(_Resumable, MedianStoppingRule):
    """A trial stops when it is below the median of the others at its step (Golovin et al., 2017)."""

    def __init__(self, layout: SweepLayout, **settings: Any) -> None:
        super().__init__(**settings)
        self._layout = layout


class PBT(PopulationBasedTraining):
    """PBT based training (Jaderberg et al., 2017) that lets a trial's last step be its last.

    Tune's own would pause it there as at each interval, and start it again, or a copy, with nothing left to train.
    """

    def __init__(self, last_step: int, **settings: Any) -> None:
        super().__init__(time_attr="step", **settings)
        self._last_step = last_step

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """What becomes of a trial that has reported."""
        if result.get("step", 0) >= self._last_step:
            return TrialScheduler.CONTINUE
        return super().on_trial_result(tune_controller, trial, result)
