"""A sweep as a person types it: bad trials stopped, one that crashes, one that hangs, a driver killed half way."""

import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from cluster.storage import SweepLayout
from cluster.sweep_results import load_results
from jobs.pull import main as pull_job
from jobs.tune import main as tune_job
from tests.factories import rendered_records, write_dataset
from textscanner import layout

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

# With this seed: a good learning rate, one that learns nothing, one that breaks, a start that hangs, nothing learnt.
SEED = 284
METRIC = "val/one_minus_ned"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    records = rendered_records(64)
    return write_dataset(str(folder / "train"), records), write_dataset(str(folder / "val"), records[:32])


@pytest.fixture
def command(data, learnt, tmp_path):
    """A sweep of five trials; where `train.init` is the second choice, the worker waits for its weights for ever."""
    hanging = tmp_path / "hanging"
    shutil.copytree(learnt.checkpoint, hanging)
    (hanging / layout.WEIGHTS_NAME).unlink()
    os.mkfifo(hanging / layout.WEIGHTS_NAME)  # like a file on a server that does not answer
    space = tmp_path / "space.toml"
    space.write_text(
        "optimizer.learning_rate = { choice = [0.01, 1e-7, 1e30] }\n"
        f'train.init = {{ choice = ["", "", "{hanging}"] }}\n'
    )
    cadence = ["train.num_steps=60", "train.validate_every=20", "train.picture_every=60", "train.log_every=5"]
    given = ["tiny", "--train", data[0], "--val", data[1], "--storage", str(tmp_path), "--name", "sweep"]
    given += ["--space", str(space), "--trials", "5", "--seed", str(SEED), "--metric", METRIC, "--retries", "0"]
    return [*given, "--stall", "1", "--set", *cadence, "train.max_failures=0", "train.threads_per_worker=1"]


def wait_for(found, process, deadline_s=240):
    end = time.monotonic() + deadline_s
    while not found():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        os.sched_yield()


def test_a_sweep_stops_the_bad_reports_the_broken_and_outlives_its_driver(command, tmp_path, capsys):
    sweep = SweepLayout(str(tmp_path), "sweep")

    def two_are_over():
        results = load_results(sweep)
        return results is not None and results.count("finished") + results.count("stopped") == 2

    driver = [sys.executable, "-m", "jobs.tune", *command]
    with subprocess.Popen(driver, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_for(two_are_over, process)
        process.kill()
    before = load_results(sweep)
    folders = {record.trial: written(tmp_path, record.trial) for record in before.trials[:2]}

    done = subprocess.run(driver, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = load_results(sweep)
    assert len(results.trials) == 5
    good, bad, broken, hanging, last = results.trials
    assert [record.state for record in (good, bad, broken, hanging, last)] == [
        *("finished", "stopped", "failed", "failed", "stopped")
    ]
    assert (good.last.step, bad.last.step, last.last.step) == (60, 20, 20)
    assert "not finite" in broken.error and "no step for 60 s after step 0" in hanging.error
    # What was over when the driver died is as it was.
    assert [good, bad] == before.trials[:2]
    assert folders == {trial: written(tmp_path, trial) for trial in folders}
    assert results.ranked()[0] is good and good.sample["optimizer.learning_rate"] == 0.01
    told = done.stdout
    assert "5 trials: 1 finished, 2 stopped, 2 failed" in told and f"failed  {hanging.trial}: no step" in told

    rows = list(csv.DictReader((tmp_path / "sweep" / "trials.csv").open()))
    assert rows[0]["trial"] == good.trial and len(rows) == 5
    assert good.trial in (tmp_path / "sweep" / "report.html").read_text()
    events = list((tmp_path / "sweep").glob("tune_*/events.out.tfevents*"))
    assert len(events) >= 3
    # The best of the best, and another sweep of the same name.
    assert pull_job([sweep.root, "--to", str(tmp_path / "best"), "--metric", METRIC]) == 0
    state = json.loads((tmp_path / "best" / layout.STATE_NAME).read_text())
    assert state["metrics"][METRIC] == good.best("max").value
    assert tune_job([*command, "--set", "train.seed=3"]) == 2
    assert "holds another sweep" in capsys.readouterr().err


def written(folder, trial):
    """When a trial's files were last changed."""
    return {p: p.stat().st_mtime_ns for p in pathlib.Path(folder, "sweep", "trials", trial).rglob("*") if p.is_file()}


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
