"""Monitoring a run: its reports, its failure, its stalling. The run itself is a stand-in."""

import threading

import pytest

from cluster.errors import RunError, StorageError
from cluster.preflight.run import watch_training
from cluster.train import stall_monitor
from cluster.train.stall_monitor import MonitoredRun
from textscanner.errors import UserError


@pytest.fixture(autouse=True)
def short_polls(monkeypatch):
    monkeypatch.setattr(stall_monitor, "POLL_S", 0.01)


def start(monkeypatch, train_run):
    def run_in_sweep(*arguments, in_sweep):
        assert in_sweep  # the sweep's driver holds the lease on its folder
        train_run(*arguments)

    monkeypatch.setattr(stall_monitor, "train_run", run_in_sweep)
    return MonitoredRun(None, "runs", "x")


def checkpoint_at(step):
    return {"step": step, "checkpoint": f"runs/x/step_{step:08d}"}


def test_reports_come_in_order_and_the_last_is_not_lost(monkeypatch):
    def train_run(spec, storage_uri, name, listener):
        listener({"step": 1}, [checkpoint_at(1)])
        listener({"step": 3}, [checkpoint_at(2), checkpoint_at(3)])

    reports = list(start(monkeypatch, train_run).reports(stall_s=60))
    assert reports == [checkpoint_at(step) for step in (1, 2, 3)]
    check = watch_training(start(monkeypatch, train_run), step_s=60)
    assert check.ok and check.finding == "3 steps, checkpoint step_00000003"


def test_the_failure_of_a_run_is_raised_where_it_is_waited_for(monkeypatch):
    def train_run(spec, storage_uri, name, listener):
        raise RunError("rank 1: out of memory")

    with pytest.raises(RunError, match="rank 1: out of memory"):
        list(start(monkeypatch, train_run).reports(stall_s=60))


@pytest.mark.parametrize("error", [UserError("data.train is empty"), StorageError("s3://x does not answer")])
def test_an_error_that_a_user_can_act_on_fails_the_run(monkeypatch, error):
    def train_run(spec, storage_uri, name, listener):
        raise error

    with pytest.raises(RunError, match=str(error)):
        list(start(monkeypatch, train_run).reports(stall_s=60))


def test_a_bug_is_raised_with_its_own_traceback(monkeypatch):
    def train_run(spec, storage_uri, name, listener):
        return {}["missing"]

    with pytest.raises(KeyError, match="missing") as raised:
        list(start(monkeypatch, train_run).reports(stall_s=60))
    assert raised.traceback[-1].name == "train_run"


def test_a_run_without_progress_is_reported_as_stalled(monkeypatch):
    release = threading.Event()

    def train_run(spec, storage_uri, name, listener):
        listener({"step": 4}, [])
        while not release.wait(0.01):
            listener({"step": 4}, [])  # the driver polls on: the same step is no progress

    run = start(monkeypatch, train_run)
    check = watch_training(run, step_s=0.3)
    assert not check.ok and check.finding == "stalled: no step for 0 s after step 4"
    release.set()
    run.join(5)
    assert not run.is_alive


def test_a_worker_that_hangs_while_it_starts_is_stalled(monkeypatch):
    """Also where the wait for nodes has no limit."""
    release = threading.Event()

    def train_run(spec, storage_uri, name, listener):
        listener({}, [])
        listener({"step": 0, "starting": 1}, [])
        release.wait(10)

    with pytest.raises(RunError, match=r"^stalled: no step for 0 s after step 0"):
        list(start(monkeypatch, train_run).reports(stall_s=0.2))
    release.set()


def test_progress_and_reports_restart_the_timeout(monkeypatch):
    def train_run(spec, storage_uri, name, listener):
        for step in range(8):
            threading.Event().wait(0.1)
            listener({"step": step}, [])
        listener({"step": 7}, [checkpoint_at(7)])

    assert list(start(monkeypatch, train_run).reports(stall_s=0.5)) == [checkpoint_at(7)]


def test_the_wait_for_nodes_is_not_stalling_unless_it_is_limited(monkeypatch):
    def train_run(spec, storage_uri, name, listener):
        listener({}, [])
        threading.Event().wait(0.5)  # no node yet
        listener({"step": 0}, [])
        listener({}, [])  # the worker failed: another node is awaited
        threading.Event().wait(0.5)
        listener({"step": 7}, [checkpoint_at(7)])

    assert list(start(monkeypatch, train_run).reports(stall_s=0.2)) == [checkpoint_at(7)]
    with pytest.raises(RunError, match=r"^stalled: no worker has started for 0 s"):
        list(start(monkeypatch, train_run).reports(stall_s=60, start_s=0.2))


def test_a_validation_that_goes_on_is_not_stalling(monkeypatch):
    def train_run(spec, storage_uri, name, listener):
        for num_rows in range(8):
            threading.Event().wait(0.1)
            listener({"step": 4, "validated": num_rows}, [])

    assert list(start(monkeypatch, train_run).reports(stall_s=0.3)) == []
