"""Progress of a run on the driver, where stderr is no terminal."""

import pytest

from cluster.train import progress
from cluster.train.progress import ProgressBar


class Actor:
    """Stands for the handle of a `ProgressActor`: `fetch.remote()` returns what `replies` has next."""

    def __init__(self, *replies):
        self._replies = iter(replies)
        self.fetch = self

    def remote(self):
        return next(self._replies)


def metrics_at(step):
    return {"step": step, "loss": 0.5, "images_per_s": 80.0, "data_wait_fraction": 0.1, "global_batch_size": 8}


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    monkeypatch.setattr(progress.ray, "get", lambda reply, timeout: reply)


def test_a_log_file_gets_a_line_every_30_seconds_and_at_the_last_step(capsys, monkeypatch):
    now_s = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s[0])
    bar = ProgressBar(Actor(*((metrics_at(step), [], []) for step in (1, 2, 3, 4, 600))), num_steps=600)
    for elapsed_s in (0, 10, 29, 31, 32):
        now_s[0] = 1000.0 + elapsed_s
        bar._update()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["1/600", "4/600", "600/600"]
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
    ProgressBar(Actor(None), 10)._update()
    assert capsys.readouterr().err == ""
