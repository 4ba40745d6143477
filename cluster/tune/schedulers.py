"""Tune schedulers for sweeps that are resumed, and population based training that ends at the last step.

Tune saves its trials and its searcher, but a resumed sweep gets its scheduler in the initial state: the first trial
after a restart would pass every stopping decision without competition. `ResumableASHA` and `ResumableMedian` are fed,
for each trial that is added, the results that storage has of it; `PBT` is not.
"""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, PopulationBasedTraining, TrialScheduler

from cluster.storage.run_layout import SweepLayout
from cluster.tune.results import load_results


class _Resumable:
    """Mixin: goes before a Tune scheduler in the list of base classes."""

    _layout: SweepLayout

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Adds a trial, and replays its results from storage if it ran before a restart."""
        super().on_trial_add(tune_controller, trial)  # type: ignore[misc]
        results = load_results(self._layout)
        record = results.record_of(trial.trial_id) if results else None
        if results is None or record is None:
            return
        for point in record.points:  # the decision is ignored: it was carried out before the restart
            self.on_trial_result(tune_controller, trial, {"step": point.step, results.metric: point.value})  # type: ignore[attr-defined]


class ResumableASHA(_Resumable, ASHAScheduler):
    """ASHA (Li et al., 2018): at each rung, only the best fraction of the trials so far continues."""

    def __init__(self, layout: SweepLayout, **settings: Any) -> None:
        super().__init__(**settings)
        self._layout = layout


class ResumableMedian(_Resumable, MedianStoppingRule):
    """Stops a trial that is below the median of the others at its step (Golovin et al., 2017)."""

    def __init__(self, layout: SweepLayout, **settings: Any) -> None:
        super().__init__(**settings)
        self._layout = layout


class PBT(PopulationBasedTraining):
    """Population based training (Jaderberg et al., 2017) that ends a trial at its last step.

    Tune's own pauses it there as at every interval, and then starts it, or a copy, again with nothing left to train.
    """

    def __init__(self, last_step: int, **settings: Any) -> None:
        super().__init__(time_attr="step", **settings)
        self._last_step = last_step

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result.get("step", 0) >= self._last_step:
            return TrialScheduler.CONTINUE
        return super().on_trial_result(tune_controller, trial, result)
