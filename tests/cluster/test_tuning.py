"""Sweeps on a local Ray cluster: early stopping, failing and stalled trials, a driver that is killed."""

import contextlib
import csv
import json
import pathlib
import subprocess
import sys
import time

import pytest

from cluster.storage.run_layout import SweepLayout
from cluster.tune import sweep as sweep_module
from cluster.tune.results import load_results
from jobs.pull import main as pull_job
from jobs.tune import main as tune_job
from tests.cluster import fake_runs
from tests.cluster.fake_runs import METRIC
from tests.factories import rendered_records, write_dataset
from textscanner import checkpoint_files

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

# With this seed the three trials get, in this order, a good learning rate, one that learns nothing, one that diverges.
SEED = 35


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    records = rendered_records(64)
    return write_dataset(str(folder / "train"), records), write_dataset(str(folder / "val"), records[:32])


# After 60 steps the good learning rate reads about a sixth of the characters, the others none.
MIN_STEPS, MAX_STEPS = 60, 180
CADENCE = (
    f"train.num_steps={MAX_STEPS}",
    f"train.validate_every_steps={MIN_STEPS}",
    f"train.image_every_steps={MAX_STEPS}",
    "train.log_every_steps=5",
)
WORKERS = ("train.max_failures=0", "train.threads_per_worker=1")


@pytest.fixture
def command(data, tmp_path):
    space = tmp_path / "space.toml"
    space.write_text("optimizer.learning_rate = { choice = [0.01, 1e-7, 1e30] }")
    arguments = ["tiny", "--train", data[0], "--val", data[1], "--storage", str(tmp_path), "--name", "sweep"]
    arguments += ["--space", str(space), "--trials", "3", "--seed", str(SEED), "--metric", METRIC, "--retries", "0"]
    return [*arguments, "--set", *CADENCE, *WORKERS]


def wait_for(condition, process, timeout_s=400):
    """Waits until `condition()` is true, while `process` runs."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
        assert process.returncode is None and time.monotonic() < end_s


def test_a_sweep_stops_bad_trials_reports_failed_ones_and_resumes_after_its_driver_is_killed(command, tmp_path, capsys):
    sweep = SweepLayout(str(tmp_path), "sweep")

    def completed():
        results = load_results(sweep)
        return [record for record in results.trials if record.state in ("finished", "stopped")] if results else []

    driver = [sys.executable, "-m", "jobs.tune", *command]
    with subprocess.Popen(driver, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_for(completed, process)
        process.kill()  # before Tune has saved that the trial is complete
    before = completed()
    times = {record.trial: modification_times(tmp_path, record.trial) for record in before}

    done = subprocess.run(driver, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = load_results(sweep)
    good, bad, diverged = results.trials
    states = [record.state for record in results.trials]
    assert states == ["finished", "stopped", "failed"], [record.error for record in results.trials]
    assert (good.last.step, bad.last.step) == (MAX_STEPS, MIN_STEPS)
    assert "not finite" in diverged.error
    # Trials that were complete when the driver died are untouched, and the bad one is still compared with them.
    assert results.trials[: len(before)] == before
    assert times == {trial: modification_times(tmp_path, trial) for trial in times}
    assert results.ranked()[0] is good and good.sample["optimizer.learning_rate"] == 0.01
    assert "3 trials: 1 finished, 1 stopped, 1 failed" in done.stdout
    assert f"failed  {diverged.trial}: rank 0" in done.stdout

    rows = list(csv.DictReader((tmp_path / "sweep" / "trials.csv").open()))
    assert rows[0]["trial"] == good.trial and len(rows) == 3
    assert good.trial in (tmp_path / "sweep" / "report.html").read_text()
    events = list((tmp_path / "sweep").glob("tune/*/events.out.tfevents*"))
    assert len(events) >= 2
    # The best checkpoint of the best trial is pulled; another sweep of the same name is refused.
    assert pull_job([sweep.root, "--to", str(tmp_path / "best"), "--metric", METRIC]) == 0
    state = json.loads((tmp_path / "best" / checkpoint_files.STATE_NAME).read_text())
    assert state["metrics"][METRIC] == good.best("max").value
    assert tune_job([*command, "--set", "train.seed=3"]) == 2
    assert "holds another sweep" in capsys.readouterr().err


def modification_times(folder, trial):
    """Of a trial's checkpoints and metrics; not of its report, which a dying worker may still draw."""
    run = pathlib.Path(folder, "sweep", "trials", trial)
    return {path: path.stat().st_mtime_ns for path in [*run.glob("step_*/*"), run / "metrics.jsonl"]}


def test_invalid_commands_are_refused_before_anything_starts(data, tmp_path, capsys):
    arguments = ["tiny", "--train", data[0], "--val", data[1], "--storage", str(tmp_path), "--name", "x"]
    for more, message in (
        (["--metric", "val/nothing"], "no trial would report it"),
        (["--space", str(tmp_path / "none.toml")], "cannot be read"),
        (["--trials", "0"], "is 0: must be at least 1"),
    ):
        assert tune_job([*arguments, *more]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    assert tune_job([*arguments, "--dry-run"]) == 0
    assert "16 trials of 1 workers, random search over optimizer.learning_rate" in capsys.readouterr().out


@pytest.fixture
def fake_trials(ray_session, monkeypatch):
    """Trials of this process' sweeps train nothing (`fake_runs.py`)."""
    monkeypatch.setattr(sweep_module, "run_trial", fake_runs.run_trial)


def fake_sweep(data, folder, name, learning_rates, *more):
    """Runs a sweep with a trial for each of some learning rates; returns its results."""
    space = folder / "space.toml"
    space.write_text(f"optimizer.learning_rate = {{ choice = {learning_rates} }}")
    arguments = ["tiny", "--train", data[0], "--val", data[1], "--storage", str(folder), "--name", name]
    arguments += ["--space", str(space), "--trials", str(len(learning_rates)), "--metric", METRIC, *more]
    steps = ["train.num_steps=20", "train.validate_every_steps=10"]
    assert tune_job([*arguments, "--init", "none", "--set", *steps]) == 0
    return load_results(SweepLayout(str(folder), name))


def test_pbt_restarts_a_bad_trial_from_the_checkpoint_of_a_good_one(fake_trials, data, tmp_path):
    results = fake_sweep(data, tmp_path, "pbt", [0.01, 1e-7], "--scheduler", "pbt", "--seed", "1")
    good, bad = sorted(results.trials, key=lambda record: record.points[0].value, reverse=True)
    copies = (tmp_path / "pbt" / "trials").glob(f"{bad.trial}-from-{good.trial}-*")
    (step,) = (int(path.name.rpartition("-")[2]) for path in copies)
    assert step == 10  # and not once more at the last step, where nothing is left to train
    copied_value = {point.step: point.value for point in good.points}[step]
    assert bad.points[0].value == 0
    assert [point.value for point in bad.points if point.step > step] >= [copied_value]


def test_a_stalled_and_a_failed_trial_do_not_end_the_sweep(fake_trials, data, tmp_path):
    rates = [0.01, fake_runs.DIVERGES, fake_runs.HANGS]
    options = ["--scheduler", "fifo", "--search", "qmc", "--retries", "0", "--stall-minutes", "0.1", "--seed", "2"]
    results = fake_sweep(data, tmp_path, "faults", rates, *options)
    by_rate = {record.sample["optimizer.learning_rate"]: (record.state, record.error) for record in results.trials}
    assert by_rate == {
        0.01: ("finished", ""),
        fake_runs.DIVERGES: ("failed", "rank 0: the loss is not finite"),
        fake_runs.HANGS: ("failed", "stalled: no step for 6 s after step 0"),
    }
