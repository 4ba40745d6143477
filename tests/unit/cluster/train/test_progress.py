"""Progress of a run on the driver, where stderr is no terminal."""

import types

import pytest
import ray.train
from ray.train.v2._internal.execution.callback import WorkerGroupCallback

from cluster.train import progress
from cluster.train.progress import ClearProgress, Delivery, ProgressActor, ProgressBar, notify


class Actor:
    """Stands for the handle of a `ProgressActor`: `fetch.remote(token)` returns what `replies` has next."""

    def __init__(self, *replies):
        self._replies = iter(replies)
        self.fetch = self

    def remote(self, received):
        return Delivery(*next(self._replies), token="")


def metrics_at(step):
    return {"step": step, "loss": 0.5, "images_per_s": 80.0, "data_wait_fraction": 0.1, "global_batch_size": 8}


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    monkeypatch.setattr(progress.ray, "get", lambda reply, timeout: reply)


@pytest.mark.parametrize(
    ("steps", "printed"),
    [
        ((1, 2, 59, 60, 61, 119, 125, 179, 599, 600, 600), (1, 60, 125, 599, 600)),
        (range(1, 601), (1, *range(60, 601, 60))),
        ((200, 239, 240, 600), (200, 240, 600)),  # a resumed run
    ],
)
def test_a_log_file_gets_a_line_per_ten_percent_and_at_the_first_and_last_step(capsys, steps, printed):
    bar = ProgressBar(Actor(*((metrics_at(step), [], []) for step in steps)), num_steps=600)
    for _ in steps:
        bar._update()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == [f"{step}/600" for step in printed]
    assert "\r" not in "".join(lines)


def test_a_line_of_a_log_file_has_the_metrics_and_the_remaining_time(capsys):
    ProgressBar(Actor((metrics_at(1), [], [])), num_steps=600)._update()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "step 1/600  loss 0.500  80 images/s  data wait 10%  1 min left"
    assert "\r" not in "".join(lines)


def test_messages_are_printed_once_and_the_listener_receives_progress_and_checkpoints(capsys):
    received = []
    report = {"step": 10, "checkpoint": "runs/x/step_00000010"}
    actor = Actor(({}, ["resumed at step 5"], []), (metrics_at(10), [], [report]))
    bar = ProgressBar(actor, 600, lambda *arguments: received.append(arguments))
    bar._update()
    bar._update()
    assert capsys.readouterr().err.count("resumed at step 5") == 1
    assert received == [({}, []), (metrics_at(10), [report])]


def test_a_lost_actor_does_not_disturb_the_run(monkeypatch, capsys):
    def fail(reply, timeout):
        raise RuntimeError("the actor died")

    monkeypatch.setattr(progress.ray, "get", fail)
    actor = Actor(*[({}, [], [])] * 2)
    ProgressBar(actor, 10)._update()
    notify(actor.fetch, "", wait=True)
    assert capsys.readouterr().err == ""


def test_an_actor_that_cannot_be_called_does_not_disturb_the_run(caplog):
    actor = Actor()  # `fetch.remote` fails: it has no reply
    notify(actor.fetch, "")
    assert "the driver's progress actor does not answer" in caplog.text


@pytest.fixture
def clear_progress(local_actor):
    """The callback, with the only group of a run's callbacks that Ray calls when workers start."""
    local_actor.set_progress({"step": 7})
    handle = types.SimpleNamespace(set_progress=types.SimpleNamespace(remote=local_actor.set_progress))
    callback = ClearProgress(handle)
    assert isinstance(callback, WorkerGroupCallback) and not isinstance(callback, ray.train.UserCallback)
    return callback


def test_there_is_no_progress_once_workers_have_failed(clear_progress, local_actor):
    clear_progress.after_worker_group_poll_status(types.SimpleNamespace(errors={}))
    assert local_actor.fetch().progress == {"step": 7}
    clear_progress.after_worker_group_poll_status(types.SimpleNamespace(errors={0: RuntimeError("lost")}))
    assert local_actor.fetch().progress == {}


def test_there_is_no_progress_while_nodes_are_awaited_after_a_preemption(clear_progress, local_actor):
    """Ray ends the workers of a node that is announced to go; none of them fails."""
    clear_progress.before_worker_group_start(None)
    assert local_actor.fetch().progress == {}


@pytest.fixture
def local_actor():
    """The actor's class without Ray."""
    return ProgressActor.__ray_metadata__.modified_class()


def test_a_delivery_that_did_not_arrive_is_repeated(local_actor):
    local_actor.add_message("resumed")
    local_actor.add_checkpoint({"step": 10})
    local_actor.fetch()  # lost
    local_actor.add_checkpoint({"step": 20})
    delivery = local_actor.fetch()
    assert delivery.messages == ["resumed"] and delivery.checkpoints == [{"step": 10}, {"step": 20}]
    assert local_actor.fetch(delivery.token).checkpoints == []


def test_a_restarted_actor_keeps_what_the_driver_has_not_acknowledged(local_actor):
    local_actor.add_checkpoint({"step": 30})
    assert local_actor.fetch("token of the actor before").checkpoints == [{"step": 30}]


def test_a_driver_that_times_out_receives_each_report_once(monkeypatch, local_actor):
    class Handle:
        class fetch:
            remote = local_actor.fetch

    timeouts = iter([True, False, False, False])

    def get(reply, timeout):
        if next(timeouts):
            raise progress.ray.exceptions.GetTimeoutError
        return reply

    monkeypatch.setattr(progress.ray, "get", get)
    received = []
    bar = ProgressBar(Handle, 10, lambda _, checkpoints: received.extend(checkpoints))
    for step in (1, 2, 3):
        local_actor.add_checkpoint({"step": step})
        bar._update()
    bar._update()
    assert received == [{"step": 1}, {"step": 2}, {"step": 3}]
