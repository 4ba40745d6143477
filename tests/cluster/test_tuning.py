"""A sweep as a person types it: bad trials stopped, one that crashes, one that hangs, a driver killed half way."""

import contextlib
import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from cluster.config import RunSpec, override
from cluster.preflight.run import watch_training
from cluster.storage.run_layout import SweepLayout
from cluster.train.stall_monitor import MonitoredRun
from cluster.tune.results import load_results
from jobs.pull import main as pull_job
from jobs.tune import main as tune_job
from tests.factories import rendered_records, write_dataset
from textscanner import checkpoint_files
from textscanner.presets import preset

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

# With this seed: a learning rate that is good, one that learns nothing, one that breaks.
SEED = 35
METRIC = "val/one_minus_ned"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    records = rendered_records(64)
    return write_dataset(str(folder / "train"), records), write_dataset(str(folder / "val"), records[:32])


CADENCE = (
    "train.num_steps=300",
    "train.validate_every_steps=100",
    "train.image_every_steps=300",
    "train.log_every_steps=5",
)
ALONE = ("train.max_failures=0", "train.threads_per_worker=1")


@pytest.fixture
def command(data, tmp_path):
    space = tmp_path / "space.toml"
    space.write_text("optimizer.learning_rate = { choice = [0.01, 1e-7, 1e30] }")
    given = ["tiny", "--train", data[0], "--val", data[1], "--storage", str(tmp_path), "--name", "sweep"]
    given += ["--space", str(space), "--trials", "3", "--seed", str(SEED), "--metric", METRIC, "--retries", "0"]
    return [*given, "--set", *CADENCE, *ALONE]


def wait_for(found, process, deadline_s=400):
    end = time.monotonic() + deadline_s
    while not found():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
        assert process.returncode is None and time.monotonic() < end


def test_a_sweep_stops_the_bad_reports_the_broken_and_outlives_its_driver(command, tmp_path, capsys):
    sweep = SweepLayout(str(tmp_path), "sweep")

    def over():
        results = load_results(sweep)
        return [record for record in results.trials if record.state in ("finished", "stopped")] if results else []

    driver = [sys.executable, "-m", "jobs.tune", *command]
    with subprocess.Popen(driver, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_for(over, process)
        process.kill()  # before Tune has saved that the trial is over
    before = over()
    folders = {record.trial: written(tmp_path, record.trial) for record in before}

    done = subprocess.run(driver, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = load_results(sweep)
    good, bad, broken = results.trials
    states = [record.state for record in results.trials]
    assert states == ["finished", "stopped", "failed"], [record.error for record in results.trials]
    assert (good.last.step, bad.last.step) == (300, 100)
    assert "not finite" in broken.error
    # What was over when the driver died is as it was, and the bad one is still measured against it.
    assert results.trials[: len(before)] == before
    assert folders == {trial: written(tmp_path, trial) for trial in folders}
    assert results.ranked()[0] is good and good.sample["optimizer.learning_rate"] == 0.01
    told = done.stdout
    assert "3 trials: 1 finished, 1 stopped, 1 failed" in told and f"failed  {broken.trial}: rank 0" in told

    rows = list(csv.DictReader((tmp_path / "sweep" / "trials.csv").open()))
    assert rows[0]["trial"] == good.trial and len(rows) == 3
    assert good.trial in (tmp_path / "sweep" / "report.html").read_text()
    events = list((tmp_path / "sweep").glob("tune/*/events.out.tfevents*"))
    assert len(events) >= 2
    # The best of the best, and another sweep of the same name.
    assert pull_job([sweep.root, "--to", str(tmp_path / "best"), "--metric", METRIC]) == 0
    state = json.loads((tmp_path / "best" / checkpoint_files.STATE_NAME).read_text())
    assert state["metrics"][METRIC] == good.best("max").value
    assert tune_job([*command, "--set", "train.seed=3"]) == 2
    assert "holds another sweep" in capsys.readouterr().err


def written(folder, trial):
    """When a trial's checkpoints and its journal were last changed; a dying worker may still draw its curves."""
    run = pathlib.Path(folder, "sweep", "trials", trial)
    return {path: path.stat().st_mtime_ns for path in [*run.glob("step_*/*"), run / "metrics.jsonl"]}


def test_a_run_that_stands_still_is_given_up(ray_session, data, learnt, tmp_path):
    """Its weights come from a pipe that nobody writes to, like a file on a server that does not answer."""
    hanging = tmp_path / "hanging"
    shutil.copytree(learnt.checkpoint, hanging)
    pipe = hanging / checkpoint_files.WEIGHTS_NAME
    pipe.unlink()
    os.mkfifo(pipe)
    told = [f'data.train=["{data[0]}"]', f"train.init={hanging}", *CADENCE, *ALONE]
    run = MonitoredRun(override(RunSpec(preset("tiny")), told), str(tmp_path), "hung")
    check = watch_training(run, step_s=8)  # a sweep's trial hears the same
    assert not check.ok and check.finding == "stalled: no step for 8 s after step 0"
    while run.is_alive:  # the worker is let go: it finds the pipe empty
        with contextlib.suppress(OSError):  # nobody reads yet, or any more
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        run.join(0.5)


def test_mistakes_are_told_before_anything_starts(data, tmp_path, capsys):
    given = ["tiny", "--train", data[0], "--val", data[1], "--storage", str(tmp_path), "--name", "x"]
    for more, complaint in (
        (["--metric", "val/nothing"], "no trial would report it"),
        (["--space", str(tmp_path / "none.toml")], "cannot be read"),
        (["--trials", "0"], "--trials is 0"),
    ):
        assert tune_job([*given, *more]) == 2
        assert complaint in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    assert tune_job([*given, "--dry-run"]) == 0
    assert "16 trials of 1 workers, random search over optimizer.learning_rate" in capsys.readouterr().out


def test_a_bad_trial_goes_on_from_a_good_ones_checkpoint(data, tmp_path):
    """PBT based training: two trials at once; the one that learns nothing starts again from the other."""
    space = tmp_path / "space.toml"
    space.write_text("optimizer.learning_rate = { choice = [0.01, 1e-7] }")
    given = ["tiny", "--train", data[0], "--val", data[1], "--storage", str(tmp_path), "--name", "pbt"]
    given += ["--space", str(space), "--trials", "2", "--seed", "1", "--metric", METRIC, "--scheduler", "pbt"]
    shares = ["train.num_steps=200", "train.cpus_per_worker=0.2", "data.cpus_per_read_task=0.2"]
    assert tune_job([*given, "--set", *CADENCE, *ALONE, *shares]) == 0
    results = load_results(SweepLayout(str(tmp_path), "pbt"))
    good, bad = sorted(results.trials, key=lambda record: record.points[0].value, reverse=True)
    started = (tmp_path / "pbt" / "trials").glob(f"{bad.trial}-from-{good.trial}-*")
    (step,) = (int(path.name.rpartition("-")[2]) for path in started)
    assert step == 100  # and not once more at the end, where nothing is left to train
    taken = {point.step: point.value for point in good.points}
    after = [point.value for point in bad.points if point.step > step]
    assert after and max(after) > bad.points[0].value and max(after) > 0.5 * taken[step]
