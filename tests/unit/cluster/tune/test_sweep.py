"""Settings of a sweep: validation, resources, schedulers, search algorithms, resuming."""

import json
import pathlib
import pickle

import pytest

from cluster.config import override
from cluster.storage.location import open_uri
from cluster.tune.search_space import Domain, SearchSpace
from cluster.tune.sweep import _claim_folder, has_tune_state, max_concurrent_trials
from tests.unit.cluster.tune.sweeps import SPEC, make_sweep
from textscanner.config import BEST_METRIC
from textscanner.errors import UserError


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_trials": 0}, "num_trials is 0: must be at least 1"),
        ({"scheduler": "best"}, "scheduler is 'best': must be one of asha, hyperband, pbt, median, fifo"),
        ({"search": "gut"}, "search is 'gut': must be one of random, tpe, qmc"),
        ({"mode": "avg"}, "mode is 'avg': must be one of max, min"),
        ({"metric": "val/wrong"}, f"no trial would report it; must be one of {BEST_METRIC}"),
        ({"warm_start": "x"}, "warm_start is 'x': it needs search 'tpe'"),
        ({"stall_s": 0}, "stall_s is 0: must be positive"),
        ({"budget_s": 0}, "budget_s is 0: must be positive"),
        ({"retries": -1}, "retries is -1: must not be negative"),
        ({"scheduler": "pbt", "search": "tpe"}, "search is 'tpe': scheduler 'pbt' changes values itself"),
        ({"spec": override(SPEC, ["train.num_steps=10"])}, "train.validate_every_steps is 20: must not exceed"),
    ],
)
def test_invalid_settings_are_refused_with_name_value_and_rule(tmp_path, changed, message):
    with pytest.raises(UserError) as raised:
        make_sweep(tmp_path, **changed)
    assert message in str(raised.value)


def test_a_metric_needs_validation_data(tmp_path):
    with pytest.raises(UserError, match=r"data\.val is empty"):
        make_sweep(tmp_path, "data.val=[]")


def test_pbt_cannot_vary_the_network(tmp_path):
    space = SearchSpace({"model.gru_units": Domain("choice", (0, 16))})
    with pytest.raises(UserError, match=r"cannot vary model\.gru_units"):
        make_sweep(tmp_path, space=space, scheduler="pbt")
    assert make_sweep(tmp_path, space=space).space is space


def test_concurrent_trials_follow_from_what_a_trial_needs(tmp_path):
    spec = make_sweep(tmp_path, "train.workers=2").spec  # 2 x 0.5 CPU, 0.5 to read, a little for the trial's driver
    assert max_concurrent_trials(spec, {"CPU": 1.6}) == 1
    assert max_concurrent_trials(spec, {"CPU": 16.0}) == 10
    with pytest.raises(UserError, match=r"2 workers x 0.5 CPU .* need 1.51 CPU; the cluster has 1.5"):
        max_concurrent_trials(spec, {"CPU": 1.5})
    gpus = override(spec, ["train.gpus_per_worker=1"])
    assert max_concurrent_trials(gpus, {"CPU": 64.0, "GPU": 5.0}) == 2
    with pytest.raises(UserError, match=r"need 2 GPU; the cluster has 1"):
        max_concurrent_trials(gpus, {"CPU": 64.0, "GPU": 1.0})


def test_every_validation_of_a_trial_saves_a_checkpoint(tmp_path):
    cadence = ("train.validate_every_steps=10", "train.checkpoint_every_steps=40")
    train = make_sweep(tmp_path, *cadence).trial_spec.config.train
    assert train.checkpoint_every_steps == 10 and train.best_metric == BEST_METRIC


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_a_sweep_whose_driver_died_during_tunes_first_save_starts_over(tmp_path, search):
    searcher_state = {
        "random": ["basic-variant-state-1.json"],
        "tpe": ["search_gen_state-1.json", "searcher-state-1.pkl"],
    }
    for name in ["tuner.pkl", "experiment_state-1.json", *searcher_state[search]]:
        assert not has_tune_state(open_uri(str(tmp_path)), search)
        (tmp_path / name).touch()
    assert has_tune_state(open_uri(str(tmp_path)), search)


def test_tunes_state_files_on_a_disk_are_replaced_atomically(tmp_path):
    files = pickle.loads(pickle.dumps(open_uri(str(tmp_path)).atomic_filesystem()))
    state = tmp_path / "trial" / "state.json"
    files.create_dir(str(state.parent))
    for before, content in ((None, b"old"), (b"old", b"new")):
        with files.open_output_stream(str(state)) as stream:
            stream.write(content)
            stream.flush()  # a driver killed at this point leaves the previous content
            assert (state.read_bytes() if state.exists() else None) == before
        assert files.open_input_stream(str(state)).read() == content
    assert [path.name for path in state.parent.iterdir()] == ["state.json"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is damaged: .*; choose another name, or delete the sweep's folder to start again"),
        ("{}", "is damaged: it has no config"),
        (json.dumps({"config": {"preset": "tiny", "train": {"workers": 3}}}), ": the key train.workers is no longer"),
    ],
)
def test_a_damaged_or_older_settings_file_is_a_user_error_that_names_it(tmp_path, content, problem):
    sweep = make_sweep(tmp_path)
    _claim_folder(sweep)
    _claim_folder(sweep)
    pathlib.Path(sweep.layout.marker).write_text(content)
    with pytest.raises(UserError, match=f"^{sweep.layout.marker} ?{problem}"):
        _claim_folder(sweep)
