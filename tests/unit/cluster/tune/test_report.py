"""The report page of a sweep."""

import pytest

from cluster.storage.location import open_uri
from cluster.tune.report import importances, page, write_report
from cluster.tune.sweep import best_trial
from tests.unit.cluster.tune.sweeps import make_results, make_sweep


def test_the_report_has_the_best_trial_and_the_importance_of_each_key(tmp_path):
    sweep, results = make_sweep(tmp_path), make_results()
    best = best_trial(sweep, results)
    assert (best.trial, best.step, best.spec.config.optimizer.learning_rate) == ("t2", 40, 0.01)
    fractions = importances(sweep, results)
    assert next(iter(fractions)) == "optimizer.learning_rate" and sum(fractions.values()) == pytest.approx(1)
    html = page(sweep, results, best, "python -m jobs.train tiny <now>")
    assert "python -m jobs.train tiny &lt;now&gt;" in html and "not finite" in html
    assert html.count("<h2>") == 6
    assert open_uri(write_report(sweep, results, best, "x")).size() > 1_000_000  # includes plotly.js: needs no network


def test_too_few_trials_give_no_importances(tmp_path):
    results = make_results()
    results.trials = results.trials[:3]
    assert importances(make_sweep(tmp_path), results) == {}
