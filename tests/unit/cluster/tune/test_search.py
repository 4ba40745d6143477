"""Schedulers and search algorithms of a sweep: they stay in the space, stop trials, and start from earlier results."""

import random
import types

import numpy as np
import pytest

from cluster.storage.run_layout import SweepLayout
from cluster.tune.search import make_scheduler, make_searcher
from cluster.tune.search_space import Domain, SearchSpace
from tests.unit.cluster.tune.sweeps import make_results, make_sweep
from textscanner.config import BEST_METRIC
from textscanner.errors import UserError


def test_pbt_stays_in_the_space(tmp_path):
    domains = {
        "optimizer.ema_momentum": Domain("choice", (0.9, 0.99)),
        "optimizer.learning_rate": Domain("loguniform", (9e-4, 1e-3)),
        "losses.word_supervision_ramp_steps": Domain("randint", (40, 50)),
    }
    sweep = make_sweep(tmp_path, scheduler="pbt", space=SearchSpace(domains))
    scheduler = make_scheduler(sweep)
    donor = types.SimpleNamespace(config=sweep.space.draw(np.random.default_rng(0)))
    random.seed(0)
    momenta = set()
    for _ in range(40):
        donor.config, _ = scheduler._get_new_config(donor, donor)
        sweep.space.apply(sweep.config, donor.config)  # raises if the config is not valid
        assert 9e-4 <= donor.config["optimizer.learning_rate"] <= 1e-3
        assert 40 <= donor.config["losses.word_supervision_ramp_steps"] <= 50
        momenta.add(donor.config["optimizer.ema_momentum"])
    assert momenta == {0.9, 0.99}


@pytest.mark.parametrize(("name", "low", "high"), [("asha", 40, 40), ("hyperband", 20, 36), ("fifo", 0, 0)])
def test_schedulers_judge_trials_at_the_first_validation(tmp_path, name, low, high):
    """Each trial is worse than all before it: of 41, ASHA stops 40; hyperband has not judged a third of them yet."""
    sweep = make_sweep(tmp_path, "train.num_steps=900", "train.validate_every_steps=100", scheduler=name)
    scheduler = make_scheduler(sweep)
    scheduler.set_search_properties(sweep.metric, sweep.mode)
    np.random.seed(0)
    num_stopped = 0
    for i in range(41):
        trial = types.SimpleNamespace(trial_id=str(i))
        scheduler.on_trial_add(None, trial)
        num_stopped += scheduler.on_trial_result(None, trial, {"step": 100, sweep.metric: 1 / (1 + i)}) == "STOP"
    assert low <= num_stopped <= high


@pytest.mark.parametrize("search", ["tpe", "qmc"])
def test_optuna_suggests_values_inside_the_space(tmp_path, search):
    searcher = make_searcher(make_sweep(tmp_path, search=search), 1)
    for i in range(8):
        sample = searcher.suggest(f"t{i}")
        assert 1e-4 <= sample["optimizer.learning_rate"] <= 1e-1 and 0 <= sample["losses.order_weight"] <= 9
        searcher.on_trial_complete(f"t{i}", {BEST_METRIC: 0.5})


def test_tpe_starts_from_the_trials_of_an_earlier_sweep(tmp_path):
    make_results().save(SweepLayout(str(tmp_path), "earlier"))
    sweep = make_sweep(tmp_path, search="tpe", warm_start=f"{tmp_path}/earlier")
    values = [trial.value for trial in make_searcher(sweep, 1)._ot_study.trials]
    assert sorted(values) == pytest.approx(sorted(record.points[-1].value for record in make_results().trials[:8]))
    narrow = SearchSpace({"optimizer.learning_rate": Domain("loguniform", (1e-6, 1e-5))})
    for name, message in (("none", "there is no sweep"), ("earlier", "lies in this sweep's space")):
        with pytest.raises(UserError, match=message):
            make_searcher(make_sweep(tmp_path, search="tpe", warm_start=f"{tmp_path}/{name}", space=narrow), 1)
