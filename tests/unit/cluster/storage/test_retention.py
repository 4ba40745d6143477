"""Which checkpoints stay, and what interrupted uploads and deletions leave, in a run's folder on a local disk."""

import json
import os
import pathlib
import time

import pytest

from cluster.storage import retention
from cluster.storage.checkpoints import complete_checkpoints, step_folder, upload
from cluster.storage.location import open_uri
from cluster.storage.retention import ABANDONED_AFTER_S, prune
from textscanner.checkpoint_files import CHECKPOINT_MANIFEST_NAME, STATE_NAME, WEIGHTS_NAME
from textscanner.config import BEST_METRIC


@pytest.fixture
def run(tmp_path):
    """Steps 10 (best) to 50."""
    for step, accuracy in ((10, 0.9), (20, 0.5), (30, 0.7), (40, 0.6), (50, 0.1)):
        local = tmp_path / str(step)
        local.mkdir()
        (local / STATE_NAME).write_text(json.dumps({"step": step, "metrics": {BEST_METRIC: accuracy}}))
        (local / WEIGHTS_NAME).write_bytes(b"weights")
        upload(local, str(tmp_path / "run" / step_folder(step)))
    return tmp_path / "run"


def make_old(folder: pathlib.Path) -> None:
    """Sets the times of a folder and its files to before the limit."""
    then_s = time.time() - ABANDONED_AFTER_S - 60
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then_s, then_s))


def steps(run):
    return sorted(int(path.name.removeprefix("step_")) for path in run.iterdir())


def test_the_best_and_the_two_newest_are_kept(run):
    assert prune(str(run), BEST_METRIC, keep=2) == [20]
    assert prune(str(run), BEST_METRIC, keep=1) == [30]
    assert steps(run) == [10, 40, 50]


def test_an_interrupted_deletion_is_completed_later(run, monkeypatch):
    def killed(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(open_uri(str(run))), "delete_tree", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(str(run), BEST_METRIC, keep=1)
    assert [c.step for c in complete_checkpoints(str(run))] == [10, 30, 40, 50]
    assert steps(run) == [10, 20, 30, 40, 50]  # the files of step 20 are still there
    make_old(run / step_folder(20))
    assert prune(str(run), BEST_METRIC, keep=2) == []
    assert steps(run) == [10, 30, 40, 50]


def test_an_upload_that_may_be_in_progress_is_not_touched(run):
    (run / step_folder(20) / CHECKPOINT_MANIFEST_NAME).unlink()  # of another process, just now
    (run / step_folder(60)).mkdir()
    (run / step_folder(60) / WEIGHTS_NAME).write_bytes(b"half")
    make_old(run / step_folder(60))  # after the newest checkpoint: this run's next upload overwrites it
    prune(str(run), BEST_METRIC, keep=3)
    assert steps(run) == [10, 20, 30, 40, 50, 60]


def test_a_damaged_manifest_is_left_for_inspection(run):
    (run / step_folder(20) / CHECKPOINT_MANIFEST_NAME).write_bytes(b"{")
    make_old(run / step_folder(20))
    assert retention.prune(str(run), BEST_METRIC, keep=3) == []
    assert (run / step_folder(20)).exists()
