"""A sweep before and after its trials: what is refused, what is kept, what is told."""

import csv
import io
import pickle
import random
import types

import numpy as np
import pyarrow.parquet
import pytest

from cluster.config import RunSpec, override
from cluster.storage.location import open_uri
from cluster.storage.run_layout import SweepLayout
from cluster.tune.report import importances, page, write_report
from cluster.tune.results import Point, SweepResults, TrialRecord, load_results
from cluster.tune.search_space import Domain, SearchSpace
from cluster.tune.sweep import Sweep, saved_by_tune, scheduler, searcher, trials_at_once, winner
from textscanner.config import BEST_METRIC
from textscanner.presets import preset

SPACE = SearchSpace(
    {"optimizer.learning_rate": Domain("loguniform", (1e-4, 1e-1)), "losses.order_weight": Domain("uniform", (0, 9))}
)


BASE = override(RunSpec(preset("tiny")), ['data.train=["a"]', 'data.val=["b"]'])


def sweep(tmp_path, *more, **changed) -> Sweep:
    given = {"spec": override(BASE, more), "space": SPACE, "storage_uri": str(tmp_path), "name": "s", "num_trials": 4}
    return Sweep(**(given | changed))


def results() -> SweepResults:
    """Trial 2 is the best; the learning rate decides, the order's weight does not."""
    found = SweepResults(BEST_METRIC, "max", elapsed_s=90.0)
    for i, rate in enumerate([1e-4, 1e-3, 1e-2, 3e-4, 5e-3, 2e-4, 7e-3, 1.5e-4]):
        record = TrialRecord(f"t{i}", {"optimizer.learning_rate": rate, "losses.order_weight": (i * 3) % 8})
        for step in (20, 40):
            record.add(Point(step, rate * step, 2.0 * step, f"runs/t{i}/step_{step:08d}"))
        record.state = "finished" if i == 2 else "stopped"
        found.trials.append(record)
    found.trials.append(TrialRecord("t8", {"optimizer.learning_rate": 1.0}, "failed", error="not finite", failures=2))
    return found


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"num_trials": 0}, "--trials is 0"),
        ({"scheduler": "best"}, "one of asha, hyperband, pbt, median, fifo"),
        ({"search": "gut"}, "one of random, tpe, qmc"),
        ({"metric": "val/wrong"}, f"no trial would report it; there are {BEST_METRIC}"),
        ({"warm_start": "x"}, "--warm-start needs --search tpe"),
        ({"stall_s": 0}, "--stall-minutes is 0"),
        ({"scheduler": "pbt", "search": "tpe"}, "it needs --search random"),
        ({"spec": override(BASE, ["train.num_steps=10"])}, "train.validate_every_steps is 20: must not exceed"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_said(tmp_path, changed, complaint):
    with pytest.raises(ValueError) as raised:
        sweep(tmp_path, **changed)
    assert complaint in str(raised.value)


def test_a_metric_needs_a_validation_set_and_pbt_leaves_the_network_alone(tmp_path):
    with pytest.raises(ValueError, match="no --val is given"):
        sweep(tmp_path, "data.val=[]")
    shape = SearchSpace({"model.gru_units": Domain("choice", (0, 16))})
    with pytest.raises(ValueError, match=r"pbt cannot vary model\.gru_units"):
        sweep(tmp_path, space=shape, scheduler="pbt")
    assert sweep(tmp_path, space=shape).space is shape


def test_trials_are_packed_by_what_they_need(tmp_path):
    spec = sweep(tmp_path, "train.workers=2").spec  # 2 x 0.5 CPU and 0.5 to read, and a little for the trial
    assert trials_at_once(spec, {"CPU": 1.6}) == 1
    assert trials_at_once(spec, {"CPU": 16.0}) == 10
    with pytest.raises(ValueError, match=r"no trial fits: 2 workers x 0.5 CPU .* make 1.51 CPU; the cluster has 1.5"):
        trials_at_once(spec, {"CPU": 1.5})
    gpus = override(spec, ["train.gpus_per_worker=1"])
    assert trials_at_once(gpus, {"CPU": 64.0, "GPU": 5.0}) == 2
    with pytest.raises(ValueError, match=r"make 2 GPU; the cluster has 1"):
        trials_at_once(gpus, {"CPU": 64.0, "GPU": 1.0})


def test_every_result_has_its_checkpoint(tmp_path):
    train = sweep(tmp_path, "train.validate_every_steps=10", "train.checkpoint_every_steps=40").trial_spec.config.train
    assert train.checkpoint_every_steps == 10 and train.best_metric == BEST_METRIC


def test_results_come_back_from_storage_and_as_tables(tmp_path):
    layout, found = SweepLayout(str(tmp_path), "s"), results()
    assert load_results(layout) is None
    found.save(layout)
    assert load_results(layout) == found
    rows = list(csv.DictReader(io.StringIO(open_uri(layout.table("csv")).read_bytes().decode())))
    assert [row["trial"] for row in rows][:2] == ["t2", "t6"] and rows[-1]["error"] == "not finite"
    assert rows[0]["checkpoint"] == "runs/t2/step_00000040" and float(rows[0][BEST_METRIC]) == pytest.approx(0.4)
    table = pyarrow.parquet.read_table(tmp_path / "s" / "trials.parquet")
    assert table.column("trial").to_pylist() == [row["trial"] for row in rows]


def test_a_file_that_tune_writes_on_a_disk_appears_whole(tmp_path):
    files = pickle.loads(pickle.dumps(open_uri(str(tmp_path)).filesystem_of_whole_files()))
    state = tmp_path / "trial" / "state.json"
    files.create_dir(str(state.parent))
    for before, content in ((None, b"old"), (b"old", b"new")):
        with files.open_output_stream(str(state)) as stream:
            stream.write(content)
            stream.flush()  # a driver that dies here leaves what was there
            assert (state.read_bytes() if state.exists() else None) == before
        assert files.open_input_stream(str(state)).read() == content
    assert [path.name for path in state.parent.iterdir()] == ["state.json"]


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_a_sweep_whose_driver_died_while_tune_saved_first_begins_anew(tmp_path, search):
    wanted = {"random": ["basic-variant-state-1.json"], "tpe": ["search_gen_state-1.json", "searcher-state-1.pkl"]}
    names = ["tuner.pkl", "experiment_state-1.json", *wanted[search]]
    for name in names:
        assert not saved_by_tune(open_uri(str(tmp_path)), search)
        (tmp_path / name).touch()
    assert saved_by_tune(open_uri(str(tmp_path)), search)


def test_a_validation_that_is_reported_again_counts_once():
    record = results().trials[0]
    before = list(record.points)
    record.add(before[0])
    assert record.points == before


def test_the_report_names_the_winner_and_what_mattered(tmp_path):
    asked, found = sweep(tmp_path), results()
    best = winner(asked, found)
    assert (best.trial, best.step, best.spec.config.optimizer.learning_rate) == ("t2", 40, 0.01)
    shares = importances(asked, found)
    assert next(iter(shares)) == "optimizer.learning_rate" and sum(shares.values()) == pytest.approx(1)
    told = page(asked, found, best, "python -m jobs.train tiny <now>")
    assert "python -m jobs.train tiny &lt;now&gt;" in told and "not finite" in told
    assert told.count("<h2>") == 6
    assert open_uri(write_report(asked, found, best, "x")).size() > 1_000_000  # it draws without a network


def test_few_trials_tell_nothing_about_what_mattered(tmp_path):
    found = results()
    found.trials = found.trials[:3]
    assert importances(sweep(tmp_path), found) == {}


def test_population_based_training_stays_in_the_space(tmp_path):
    domains = {
        "optimizer.ema_momentum": Domain("choice", (0.9, 0.99)),
        "optimizer.learning_rate": Domain("loguniform", (9e-4, 1e-3)),
        "losses.word_supervision_ramp_steps": Domain("randint", (40, 50)),
    }
    wanted = sweep(tmp_path, scheduler="pbt", space=SearchSpace(domains))
    judge = scheduler(wanted)
    donor = types.SimpleNamespace(config=wanted.space.draw(np.random.default_rng(0)))
    random.seed(0)
    seen = set()
    for _ in range(40):
        donor.config, _ = judge._get_new_config(donor, donor)
        wanted.space.apply(wanted.config, donor.config)  # what no config allows would raise here
        assert 9e-4 <= donor.config["optimizer.learning_rate"] <= 1e-3
        assert 40 <= donor.config["losses.word_supervision_ramp_steps"] <= 50
        seen.add(donor.config["optimizer.ema_momentum"])
    assert seen == {0.9, 0.99}


@pytest.mark.parametrize(("name", "low", "high"), [("asha", 40, 40), ("hyperband", 20, 36), ("fifo", 0, 0)])
def test_schedulers_judge_trials_at_the_first_validation(tmp_path, name, low, high):
    """Each trial is worse than all before it: of 41, ASHA stops 40; hyperband has not judged a third of them yet."""
    wanted = sweep(tmp_path, "train.num_steps=900", "train.validate_every_steps=100", scheduler=name)
    judge = scheduler(wanted)
    judge.set_search_properties(wanted.metric, wanted.mode)
    np.random.seed(0)
    stopped = 0
    for i in range(41):
        trial = types.SimpleNamespace(trial_id=str(i))
        judge.on_trial_add(None, trial)
        stopped += judge.on_trial_result(None, trial, {"step": 100, wanted.metric: 1 / (1 + i)}) == "STOP"
    assert low <= stopped <= high


@pytest.mark.parametrize("search", ["tpe", "qmc"])
def test_optuna_suggests_what_lies_in_the_space(tmp_path, search):
    found = searcher(sweep(tmp_path, search=search), 1)
    for i in range(8):
        sample = found.suggest(f"t{i}")
        assert 1e-4 <= sample["optimizer.learning_rate"] <= 1e-1 and 0 <= sample["losses.order_weight"] <= 9
        found.on_trial_complete(f"t{i}", {BEST_METRIC: 0.5})


def test_tpe_knows_what_an_earlier_sweep_found(tmp_path):
    results().save(SweepLayout(str(tmp_path), "earlier"))
    warm = sweep(tmp_path, search="tpe", warm_start=f"{tmp_path}/earlier")
    known = [trial.value for trial in searcher(warm, 1)._ot_study.trials]
    assert sorted(known) == pytest.approx(sorted(record.points[-1].value for record in results().trials[:8]))
    for uri, complaint in ((f"{tmp_path}/none", "there is no sweep"), (f"{tmp_path}/earlier", "lies in this space")):
        narrow = SearchSpace({"optimizer.learning_rate": Domain("loguniform", (1e-6, 1e-5))})
        with pytest.raises(ValueError, match=complaint):
            searcher(sweep(tmp_path, search="tpe", warm_start=uri, space=narrow), 1)
