"""What rank 0 writes and sends, where the driver's progress actor does not answer. Storage is a local folder."""

import json
import threading
import types

import pytest

from cluster.config import RunSpec, override
from cluster.storage import s3_retries
from cluster.storage.checkpoints import complete_checkpoints
from cluster.train import progress, rank_zero
from cluster.train.rank_zero import RankZeroOutputs
from textscanner.checkpoint import CheckpointMeta
from textscanner.checkpoint_files import STATE_NAME
from textscanner.presets import preset

SPEC = override(RunSpec(preset("tiny")), ["train.keep_checkpoints=1"])


class Actor:
    """Stands for the handle of a `ProgressActor`: calls are recorded, or fail."""

    def __init__(self, fails=False):
        self._fails, self.calls = fails, []

    def __getattr__(self, method):
        return types.SimpleNamespace(remote=lambda *arguments: self._call(method, *arguments))

    def _call(self, *call):
        if self._fails:
            raise progress.ray.exceptions.ActorDiedError
        self.calls.append(call)


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    monkeypatch.setattr(rank_zero, "RunMetrics", lambda *_, **__: types.SimpleNamespace(saved=lambda _: None))
    monkeypatch.setattr(progress.ray, "get", lambda reply, timeout: reply)
    monkeypatch.setattr(s3_retries, "_notices", s3_retries._Notices())


def saved(folder, step):
    """A local checkpoint as `save` leaves it."""
    folder.mkdir()
    (folder / STATE_NAME).write_text(json.dumps({"step": step, "metrics": {}}))
    return rank_zero.ray.train.Checkpoint.from_directory(str(folder))


def test_a_lost_progress_actor_fails_neither_the_start_nor_an_upload(tmp_path):
    outputs = RankZeroOutputs(SPEC, str(tmp_path / "run"), Actor(fails=True), start_step=0)
    outputs.send_message("started")
    outputs.upload({"step": 10}, saved(tmp_path / "local", 10), "step_00000010")
    assert [checkpoint.step for checkpoint in complete_checkpoints(str(tmp_path / "run"))] == [10]


def test_the_driver_knows_from_the_start_that_workers_run_and_that_a_validation_goes_on(tmp_path):
    actor = Actor()
    outputs = RankZeroOutputs(SPEC, str(tmp_path / "run"), actor, start_step=10)
    assert actor.calls == [("set_progress", {"step": 10})]
    outputs.validating(0)
    outputs.validating(128)  # too soon
    assert actor.calls[1:] == [("set_progress", {"step": 10, "validated": 0})]


def test_storage_that_is_retried_is_announced_on_the_driver(tmp_path):
    actor = Actor()
    RankZeroOutputs(SPEC, str(tmp_path / "run"), actor, start_step=0)
    s3_retries._notices.announce("AWS S3: no answer; retrying until 12:00:00", until_s=0)
    assert actor.calls[-1] == ("add_message", "AWS S3: no answer; retrying until 12:00:00")


def test_uploads_that_are_slower_than_saving_are_waited_for(tmp_path, monkeypatch):
    """Two checkpoints may be on the node's disk; the third is saved when one has been uploaded."""
    monkeypatch.setattr(rank_zero, "SIGN_INTERVAL_S", 0.05)
    monkeypatch.setattr(rank_zero.checkpoint, "save", lambda *_: None)
    actor, state = Actor(), None
    outputs = RankZeroOutputs(SPEC, str(tmp_path / "run"), actor, start_step=0)
    for step in (10, 20):
        outputs.save(state, CheckpointMeta(step, 0.5, {}))
    third = threading.Thread(target=outputs.save, args=(state, CheckpointMeta(30, 0.5, {})))
    third.start()
    third.join(0.5)
    assert third.is_alive()
    messages = [call for call in actor.calls if call[0] == "add_message"]
    assert messages == [("add_message", "step 30 waits: checkpoints are uploaded more slowly than they are saved")]
    assert sum("waited_s" in call[1] for call in actor.calls if call[0] == "set_progress") > 2  # it has not stalled
    outputs.upload({"step": 10}, saved(tmp_path / "local", 10), "step_00000010")
    third.join(5)
    assert not third.is_alive()


def test_a_failed_upload_makes_room_too(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero.checkpoint, "save", lambda *_: None)
    outputs = RankZeroOutputs(SPEC, str(tmp_path / "run"), Actor(), start_step=0)
    for step in (10, 20, 30, 40):
        outputs.save(None, CheckpointMeta(step, 0.5, {}))
        with pytest.raises(OSError, match="state"):
            nothing = rank_zero.ray.train.Checkpoint.from_directory(str(tmp_path / "nothing"))
            outputs.upload({"step": step}, nothing, f"step_{step:08d}")
