"""The worker process: the order of resuming, and which rank writes."""

import dataclasses
import json
import types
from unittest import mock

import numpy as np
import pytest

from cluster.config import RunSpec, override
from cluster.train import worker
from cluster.train.worker import WorkerSettings, _with_threads, train_worker
from textscanner.checkpoint import CheckpointMeta
from textscanner.checkpoint_files import CONFIG_NAME, STATE_NAME
from textscanner.evaluation.calibration import Calibration
from textscanner.presets import preset
from textscanner.training.loop import TrainEvent

SPEC = override(RunSpec(preset("tiny")), ["train.workers=2", "train.num_steps=20"])
RESTORED_STEP = 10
HASHES = {"data/words": "0" * 64}


@pytest.fixture
def calls(monkeypatch):
    """The calls of a resumed worker in order, by name, each replaced by a stub."""
    order = mock.Mock()
    context = types.SimpleNamespace(get_world_rank=lambda: 1, get_world_size=lambda: 2, get_local_world_size=lambda: 2)
    monkeypatch.setattr(worker.ray.train, "get_context", lambda: context)
    names = ("make_strategy", "create_state", "_restore", "make_training_sampler", "worker_batches", "training_loop")
    for name in (*names, "DistributedBatches", "make_train_step", "_Worker"):
        monkeypatch.setattr(worker, name, getattr(order, name))
    order._restore.return_value = CheckpointMeta(RESTORED_STEP, 0.5, {})
    order.training_loop.return_value = [TrainEvent(RESTORED_STEP + 1, None, False, False, False)]
    train_worker(WorkerSettings(SPEC.to_dict(), "runs/x", None, HASHES))
    return order


def test_the_order_of_resuming_is_strategy_model_checkpoint_sampler_first_step(calls):
    names = [call[0].partition(".")[0] for call in calls.mock_calls]
    steps = ["make_strategy", "create_state", "_restore", "make_training_sampler", "training_loop"]
    assert [name for name in names if name in steps] == steps


def test_sampler_and_loop_start_at_the_restored_step(calls):
    batches, loop = calls.worker_batches.call_args.kwargs, calls.training_loop.call_args.args
    remaining_steps = SPEC.config.train.num_steps - RESTORED_STEP
    assert batches == {"worker": 1, "num_workers": 2, "start_step": RESTORED_STEP, "num_steps": remaining_steps}
    assert loop[2] == RESTORED_STEP


def test_the_driver_knows_that_rank_0_runs_before_anything_can_hang(monkeypatch):
    """The stall monitor then counts the start; a worker without progress is one that waits for a node."""
    calls = []
    context = types.SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 2, get_local_world_size=lambda: 2)
    monkeypatch.setattr(worker.ray.train, "get_context", lambda: context)
    monkeypatch.setattr(worker, "make_strategy", mock.Mock(side_effect=TimeoutError))
    remote = types.SimpleNamespace(remote=calls.append)
    settings = WorkerSettings(SPEC.to_dict(), "runs/x", types.SimpleNamespace(set_progress=remote), {})
    with pytest.raises(TimeoutError):
        train_worker(settings)
    assert calls == [{"step": 0, "starting": 1}]


def test_a_worker_trains_only_on_the_data_that_the_run_began_with(calls):
    assert calls.make_training_sampler.call_args.args == (SPEC.config, HASHES)


def test_a_worker_validates_only_on_the_data_that_the_run_began_with(monkeypatch):
    read = mock.Mock()
    monkeypatch.setattr(worker, "read_manifest", read)
    monkeypatch.setattr(worker, "Reader", mock.Mock())
    spec = override(SPEC, ['data.val=["data/words"]'])
    settings = WorkerSettings(spec.to_dict(), "runs/x", None, HASHES)
    state = mock.Mock(config=spec.config)
    worker._Worker(spec, state, settings, rank=1, num_workers=2, meta=CheckpointMeta(0, 0.5, {}))
    assert read.call_args.args == ("data/words", "0" * 64)


def test_cpu_workers_of_a_node_share_its_cores(monkeypatch):
    monkeypatch.setattr(worker.os, "cpu_count", lambda: 8)
    train = SPEC.runtime.train
    assert _with_threads(train, local_world_size=2).threads_per_worker == 4
    assert _with_threads(train, local_world_size=16).threads_per_worker == 1
    fixed = override(SPEC, ["train.threads_per_worker=3"]).runtime.train
    assert _with_threads(fixed, local_world_size=2) == fixed


def make_worker(monkeypatch, rank):
    """A worker whose reader and outputs are stubs; (worker, the stub of ray.train.report)."""
    report = mock.Mock()
    monkeypatch.setattr(worker.ray.train, "report", report)
    monkeypatch.setattr(worker, "Reader", mock.Mock())
    monkeypatch.setattr(worker, "RankZeroOutputs", mock.Mock())
    state = mock.Mock(config=SPEC.config)
    settings = WorkerSettings(SPEC.to_dict(), "runs/x", None, {})
    return worker._Worker(SPEC, state, settings, rank=rank, num_workers=2, meta=CheckpointMeta(0, 0.5, {})), report


@pytest.fixture
def init_messages(tmp_path, monkeypatch):
    """Initializes from a checkpoint in `tmp_path` whose weights are not read: (config, rank) -> (meta, messages)."""
    (tmp_path / CONFIG_NAME).write_text(json.dumps(SPEC.config.to_dict()))
    (tmp_path / STATE_NAME).write_text(
        json.dumps({"step": 70, "threshold": 0.65, "metrics": {"val/word_accuracy": 0.9}})
    )
    messages = []
    monkeypatch.setattr(worker, "_send_message", lambda settings, message: messages.append(message))
    monkeypatch.setattr(worker.checkpoint, "initialize", lambda path, state: [])

    def initialize(spec, rank):
        config = dataclasses.replace(spec.config, train=dataclasses.replace(spec.config.train, init=str(tmp_path)))
        settings = WorkerSettings(spec.to_dict(), "runs/x", None, {})
        return worker._initialize(mock.Mock(config=config), settings, rank), messages

    return initialize


@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_that_never_validates_keeps_the_threshold_of_its_initial_weights(init_messages, rank):
    meta, _ = init_messages(SPEC, rank)
    assert meta == CheckpointMeta(0, 0.65, {})  # the metrics are of another run's words


def test_differences_from_the_config_of_the_initial_weights_are_printed_once(init_messages, tmp_path):
    changed = override(SPEC, ["model.activation=silu", "targets.sigma=stride", "train.num_steps=7"])
    assert init_messages(changed, rank=1)[1] == []
    _, messages = init_messages(changed, rank=0)
    expected = f"init {tmp_path}: model.activation relu -> silu, targets.sigma box -> stride"
    assert messages == [f"started with the weights of {tmp_path}", expected]


@pytest.mark.parametrize("rank", [0, 1])
def test_every_rank_reports_and_only_rank_zero_saves(monkeypatch, rank):
    process, report = make_worker(monkeypatch, rank)
    process.handle(TrainEvent(10, None, False, True, False))
    assert report.call_args.args == ({"step": 10},)
    assert (report.call_args.kwargs["checkpoint"] is not None) == (rank == 0)
    assert (report.call_args.kwargs["checkpoint_upload_fn"] is not None) == (rank == 0)
    assert (process._outputs is not None) == (rank == 0)


LOGGED = TrainEvent(12, {"loss": 1.0}, False, False, False)


@pytest.fixture
def timed_worker(monkeypatch):
    """Worker of rank 1, what rank 0's clock says (a dict), and the stub of ray.train.report."""
    process, report = make_worker(monkeypatch, rank=1)
    rank_zero = {"due": False}
    monkeypatch.setattr(worker, "broadcast_from_rank_zero", lambda own: rank_zero["due"])
    return process, rank_zero, report


@pytest.mark.parametrize("due", [True, False])
def test_the_clock_of_rank_zero_decides_for_all_ranks(timed_worker, monkeypatch, due):
    process, rank_zero, report = timed_worker
    rank_zero["due"] = due
    monkeypatch.setattr(process._checkpoint_clock, "is_due", lambda: not due)  # this rank's own
    process.handle(LOGGED)
    assert report.called == due


@pytest.mark.parametrize(
    "event", [dataclasses.replace(LOGGED, metrics=None), dataclasses.replace(LOGGED, num_skipped=1)]
)
def test_the_clock_is_not_asked_without_metrics_or_while_steps_are_skipped(timed_worker, event):
    process, rank_zero, report = timed_worker
    rank_zero["due"] = True
    process.handle(event)
    assert not report.called


def test_every_checkpoint_starts_the_clock_anew(timed_worker, monkeypatch):
    process, _, _ = timed_worker
    saved = mock.Mock()
    monkeypatch.setattr(process._checkpoint_clock, "saved", saved)
    process.handle(dataclasses.replace(LOGGED, checkpoint=True))
    assert saved.called


def test_skipped_steps_are_reported_to_the_driver(monkeypatch):
    process, _ = make_worker(monkeypatch, rank=0)
    process.handle(TrainEvent(12, None, False, False, False, num_skipped=3))
    [message] = process._outputs.send_message.call_args.args
    assert message.startswith("step 12: 3 steps skipped")


def test_validation_passes_on_whether_the_case_of_a_label_is_known(monkeypatch):
    process, _ = make_worker(monkeypatch, rank=1)
    rows = {
        "length": np.ones(2),
        "image": np.zeros((2, 1)),
        "text": np.array(["a", "b"]),
        "case_known": np.array([1, 0]),
    }
    monkeypatch.setattr(worker, "evaluation_rows", lambda *args, **kwargs: [(0, rows)])
    monkeypatch.setattr(worker, "sum_over_workers", lambda strategy, vector: vector)
    calibration = mock.Mock(spec=Calibration)
    calibration.as_vector.return_value = np.zeros(1)
    calibration.with_vector.return_value.best.return_value = (0.5, {})
    monkeypatch.setattr(worker, "Calibration", lambda num_datasets: calibration)
    process._validate(10)
    assert calibration.add.call_args.args[4].tolist() == [True, False]


def test_a_finished_run_that_is_started_again_takes_no_step_and_saves_nothing(monkeypatch):
    stubs = mock.Mock()
    context = types.SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 2, get_local_world_size=lambda: 2)
    monkeypatch.setattr(worker.ray.train, "get_context", lambda: context)
    names = ("make_strategy", "create_state", "_restore", "make_training_sampler", "worker_batches", "_Worker")
    for name in (*names, "DistributedBatches", "make_train_step"):
        monkeypatch.setattr(worker, name, getattr(stubs, name))
    stubs._restore.return_value = CheckpointMeta(SPEC.config.train.num_steps, 0.5, {})
    train_worker(WorkerSettings(SPEC.to_dict(), "runs/x", mock.Mock(), {}))  # the training loop is the real one
    assert stubs.make_train_step.return_value.called is False
    assert [call[0] for call in stubs._Worker.return_value.method_calls] == ["close"]
