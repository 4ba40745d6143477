"""Restarts after failures: the budget, what an attempt starts with, the message. Ray's trainer is a stand-in."""

import types

import pytest
import ray.train

from cluster.errors import StorageError
from cluster.train import restarts
from cluster.train.restarts import RAY_SNAPSHOT_NAME, FailureBudget, failure_message, fit_with_restarts


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    monkeypatch.setattr(restarts.ray._private.worker, "_global_node", None)


class Run:
    """A run of attempts that fail; `steps` are those of the newest checkpoint at each failure, then it finishes."""

    def __init__(self, monkeypatch, root, *steps):
        self.root, self._steps, self.num_attempts, self._newest = root, list(steps), 0, 0
        monkeypatch.setattr(restarts, "complete_checkpoints", self._checkpoints)

    def _checkpoints(self, root):
        assert root == str(self.root)
        if self._newest is None:
            raise StorageError("no answer")
        return [types.SimpleNamespace(step=self._newest)] if self._newest else []

    def fit(self):
        assert not (self.root / RAY_SNAPSHOT_NAME).exists()
        (self.root / RAY_SNAPSHOT_NAME).write_text("Ray's list of checkpoints")
        self.num_attempts += 1
        if self._steps:
            self._newest = self._steps.pop(0)
            raise ray.train.WorkerGroupError("failed", {0: RuntimeError(f"step {self._newest}")})

    def train(self, max_failures):
        fit_with_restarts(lambda: self, str(self.root), max_failures)


def test_progress_refills_the_budget(monkeypatch, tmp_path):
    run = Run(monkeypatch, tmp_path, *range(100, 1100, 100))
    run.train(max_failures=1)
    assert run.num_attempts == 11


def test_a_failure_that_recurs_without_progress_ends_the_run(monkeypatch, tmp_path):
    run = Run(monkeypatch, tmp_path, 100, 100, 100, 100, 200)
    with pytest.raises(ray.train.WorkerGroupError):
        run.train(max_failures=3)
    assert run.num_attempts == 4


def test_without_a_budget_the_first_failure_ends_the_run_and_minus_one_has_no_limit(monkeypatch, tmp_path):
    run = Run(monkeypatch, tmp_path, 100)
    with pytest.raises(ray.train.WorkerGroupError):
        run.train(max_failures=0)
    run = Run(monkeypatch, tmp_path, *[100] * 50)
    run.train(max_failures=-1)
    assert run.num_attempts == 51


def test_a_resumed_run_has_made_no_progress_yet():
    budget = FailureBudget(max_failures=1, newest_step=500)
    assert budget.allows_restart(500)
    assert not budget.allows_restart(500)


def test_storage_that_does_not_answer_is_no_progress(monkeypatch, tmp_path):
    run = Run(monkeypatch, tmp_path, 100, None, 100)
    with pytest.raises(ray.train.WorkerGroupError):
        run.train(max_failures=2)
    assert run.num_attempts == 3


def test_a_restart_is_one_line_with_the_reason(monkeypatch, tmp_path, capsys):
    Run(monkeypatch, tmp_path, 100).train(max_failures=3)
    assert capsys.readouterr().err == "restarting from step 100 after failure 1 of 3: rank 0: step 100\n"


def test_a_failure_of_ray_itself_is_not_repeated(monkeypatch, tmp_path):
    class Broken:
        def fit(self):
            raise ray.train.TrainingFailedError("the controller failed")

    with pytest.raises(ray.train.TrainingFailedError, match="controller"):
        fit_with_restarts(Broken, str(tmp_path), 3)


def test_the_failure_message_is_the_last_line_of_each_failed_worker(monkeypatch):
    monkeypatch.setattr(restarts.ray._private.worker, "_global_node", None)
    error = types.SimpleNamespace(worker_failures={1: "Traceback ...\n\nUserError: shard 3 is damaged", 0: "lost"})
    assert failure_message(error) == "rank 0: lost; rank 1: UserError: shard 3 is damaged"
    assert failure_message(RuntimeError("first\nlast line\n")) == "last line"
    assert failure_message(RuntimeError()) == "RuntimeError()"


def test_the_failure_message_ends_with_the_folder_of_the_logs_while_ray_runs(monkeypatch):
    node = types.SimpleNamespace(get_logs_dir_path=lambda: "/ray/session_x/logs")
    monkeypatch.setattr(restarts.ray._private.worker, "_global_node", node)
    assert failure_message(RuntimeError("lost")) == "lost; logs: /ray/session_x/logs"
