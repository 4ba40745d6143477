"""A trial reports each validated checkpoint once, also those whose own report was lost. The run is a stand-in."""

import types

import pytest

from cluster.config import RunSpec
from cluster.tune import trial
from cluster.tune.search_space import SearchSpace
from cluster.tune.trial import TrialSettings, run_trial
from textscanner.config import BEST_METRIC
from textscanner.presets import preset


def checkpoint_at(step):
    return types.SimpleNamespace(step=step, uri=f"runs/x/step_{step:08d}", metrics={BEST_METRIC: step / 100})


@pytest.fixture
def reported_by(monkeypatch):
    """The steps that a trial reports: its folder holds `before` and later `after`, and its run reports `reports`."""

    def run(before, reports, after):
        stored, steps = [before], []

        class Run:
            def __init__(self, *_):
                stored.append(after)

            def reports(self, stall_s):
                for step in reports:
                    yield {"step": step, "checkpoint": checkpoint_at(step).uri} | checkpoint_at(step).metrics

        monkeypatch.setattr(trial, "MonitoredRun", Run)
        monkeypatch.setattr(trial, "complete_checkpoints", lambda _: [checkpoint_at(step) for step in stored[-1]])
        monkeypatch.setattr(trial, "_prepare_folder", lambda *_: "x")
        monkeypatch.setattr(trial.tune, "get_context", lambda: types.SimpleNamespace(get_trial_id=lambda: "x"))
        monkeypatch.setattr(trial, "_report", lambda report: steps.append(report["step"]))
        run_trial({}, TrialSettings(RunSpec(preset("tiny")).to_dict(), SearchSpace({}), "runs", 600.0))
        return steps

    return run


def test_a_report_that_was_lost_is_made_up_for_at_the_end(reported_by):
    assert reported_by(before=[], reports=[10], after=[10, 20, 30]) == [10, 20, 30]


def test_steps_are_reported_in_order(reported_by):
    assert reported_by(before=[], reports=[10, 30], after=[10, 20, 30]) == [10, 30]


def test_a_resumed_trial_reports_its_old_checkpoints_first_and_none_twice(reported_by):
    assert reported_by(before=[10], reports=[20], after=[10, 20]) == [10, 20]
