"""Checkpoints in a run's folder on a local disk; those in a bucket are tested in tests/storage."""

import hashlib
import json
import os
import pathlib

import pytest

from cluster.storage.checkpoints import (
    best_checkpoint,
    complete_checkpoints,
    fetch_checkpoint,
    latest_valid,
    list_checkpoints,
    pull,
    select_checkpoint,
    step_folder,
    upload,
    verify,
)
from cluster.storage.retention import prune
from textscanner.checkpoint_files import CHECKPOINT_MANIFEST_NAME, STATE_NAME, WEIGHTS_NAME, shipped_weights
from textscanner.config import BEST_METRIC


def save(folder: pathlib.Path, step: int, metrics: dict[str, float]) -> str:
    """Uploads a checkpoint of these metrics into the run's folder; its weights are a few bytes."""
    local = folder.parent / f"local_{step}"
    local.mkdir()
    (local / STATE_NAME).write_text(json.dumps({"step": step, "metrics": metrics}))
    (local / WEIGHTS_NAME).write_bytes(b"weights of step %d" % step)
    uri = str(folder / step_folder(step))
    upload(local, uri)
    return uri


@pytest.fixture
def run(tmp_path):
    """Steps 10 (best), 20 and 30; step 40 has no manifest."""
    folder = tmp_path / "run"
    for step, accuracy in ((10, 0.9), (20, 0.5), (30, 0.7)):
        save(folder, step, {BEST_METRIC: accuracy, "val/loss": step / 10})
    (pathlib.Path(save(folder, 40, {BEST_METRIC: 1.0})) / CHECKPOINT_MANIFEST_NAME).unlink()
    return folder


def test_a_checkpoint_without_a_manifest_is_ignored(run):
    assert [checkpoint.step for checkpoint in complete_checkpoints(str(run))] == [10, 20, 30]


def test_a_checkpoint_is_selected_by_metric_step_or_age(run):
    checkpoints = list_checkpoints(str(run))
    assert select_checkpoint(checkpoints).uri == best_checkpoint(str(run)) == str(run / step_folder(10))
    assert select_checkpoint(checkpoints, mode="min").step == 20
    assert select_checkpoint(checkpoints, "val/loss").step == 30
    assert select_checkpoint(checkpoints, step=20).step == 20
    assert select_checkpoint(checkpoints, last=True).step == 30
    with pytest.raises(ValueError, match=r"^step is 7: the run has steps 10, 20, 30"):
        select_checkpoint(checkpoints, step=7)
    with pytest.raises(ValueError, match=rf"^metric is 'val/x'.*available: val/loss, {BEST_METRIC}"):
        select_checkpoint(checkpoints, "val/x")


def test_of_equal_checkpoints_the_newest_is_selected(tmp_path):
    for step in (1, 2):
        save(tmp_path / "run", step, {BEST_METRIC: 0.5})
    assert select_checkpoint(list_checkpoints(str(tmp_path / "run"))).step == 2


def test_without_metrics_the_last_is_selected(tmp_path):
    for step in (1, 2):
        save(tmp_path / "run", step, {})
    assert select_checkpoint(list_checkpoints(str(tmp_path / "run"))).step == 2


def test_a_damaged_checkpoint_is_skipped_and_reported(run):
    (run / step_folder(30) / WEIGHTS_NAME).write_bytes(b"other")
    with pytest.raises(ValueError, match="is missing or differs"):
        verify(run / step_folder(30))
    (checkpoint, folder), damaged = latest_valid(str(run))
    assert (checkpoint.step, folder) == (20, str(run / step_folder(20)))
    assert len(damaged) == 1 and step_folder(30) in damaged[0]


def rewrite_manifest(uri: str, **changes) -> None:
    path = pathlib.Path(uri) / CHECKPOINT_MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", ["../../evil", "{folder}/evil", "sub/evil", "..", ".", "", ".hidden", "a\0b", "a\\b"])
def test_a_name_that_leaves_its_folder_is_never_written(run, tmp_path, name):
    """The content is really there and its hash is right: only the name is wrong."""
    content = b"evil"
    name = name.format(folder=tmp_path / "elsewhere")
    source = run / step_folder(30)
    entry = {"name": name, "num_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rewrite_manifest(str(source), files=[entry])
    for path in (tmp_path / "evil", tmp_path / "elsewhere" / "evil", source / "sub" / "evil"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    assert [checkpoint.step for checkpoint in complete_checkpoints(str(run))] == [10, 20]
    with pytest.raises(ValueError, match=r"file name .* is not a plain one"):
        verify(source)
    _, damaged = latest_valid(str(run))
    assert len(damaged) == 1 and step_folder(30) in damaged[0]
    with pytest.raises(ValueError, match=r"step is 30: the run has steps 10, 20"):
        pull(select_checkpoint(list_checkpoints(str(run)), step=30), tmp_path / "pulled", quiet=True)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff", b'{"step": 30}', b"[" * 100_000, b" " * (2 << 20)]
)
def test_a_garbled_manifest_costs_only_its_checkpoint(run, content):
    (run / step_folder(30) / CHECKPOINT_MANIFEST_NAME).write_bytes(content)
    assert [checkpoint.step for checkpoint in complete_checkpoints(str(run))] == [10, 20]
    assert [checkpoint.step for checkpoint in list_checkpoints(str(run))] == [10, 20]
    assert fetch_checkpoint(str(run)) == str(run / step_folder(10))
    (checkpoint, _), damaged = latest_valid(str(run))
    assert checkpoint.step == 20
    assert len(damaged) == 1 and step_folder(30) in damaged[0]
    assert prune(str(run), BEST_METRIC, keep=1) == []


def test_a_run_of_damaged_checkpoints_says_so(tmp_path):
    uri = save(tmp_path / "run", 10, {})
    (pathlib.Path(uri) / CHECKPOINT_MANIFEST_NAME).write_bytes(b"")
    with pytest.raises(ValueError, match=r"no complete checkpoint.*\n.*checkpoint_manifest\.json cannot be read"):
        list_checkpoints(str(tmp_path / "run"))


@pytest.mark.parametrize("damage", ["missing", "short"])
@pytest.mark.parametrize("name", [STATE_NAME, WEIGHTS_NAME])
def test_a_missing_or_short_file_costs_only_its_checkpoint(run, tmp_path, name, damage):
    path = run / step_folder(30) / name
    newest = list_checkpoints(str(run))[-1]
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:-1])
    (checkpoint, _), damaged = latest_valid(str(run))
    assert checkpoint.step == 20
    assert len(damaged) == 1 and name in damaged[0]
    with pytest.raises(ValueError, match=rf"{name} .*the checkpoint is damaged"):  # as latest_valid does from a bucket
        pull(newest, tmp_path / "pulled", quiet=True)


def test_a_metric_that_is_not_finite_is_never_the_best(run):
    rewrite_manifest(str(run / step_folder(30)), metrics={BEST_METRIC: float("nan"), "val/loss": 3.0})
    assert list_checkpoints(str(run))[-1].metrics == {"val/loss": 3.0}
    assert best_checkpoint(str(run)) == str(run / step_folder(10))


def test_a_pulled_checkpoint_is_verified_and_not_overwritten(run, tmp_path):
    best, other, _ = list_checkpoints(str(run))
    target = pull(best, tmp_path / "best", quiet=True)
    verify(target)
    assert pull(best, target, quiet=True) == target
    with pytest.raises(ValueError, match="exists and is not"):
        pull(other, target, quiet=True)


def test_a_pulled_checkpoint_is_on_the_disk_before_its_name(run, tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, pathlib.Path.rename
    monkeypatch.setattr(os, "fsync", lambda file: (events.append(os.readlink(f"/proc/self/fd/{file}")), fsync(file)))
    monkeypatch.setattr(pathlib.Path, "rename", lambda self, to: (events.append("rename"), rename(self, to))[1])
    best = list_checkpoints(str(run))[0]
    pull(best, tmp_path / "best", quiet=True)
    partial = tmp_path / ".best.partial"
    before, after = events[: events.index("rename")], events[events.index("rename") + 1 :]
    assert {str(partial), *(str(partial / file.name) for file in best.files)} <= set(before)
    assert after == [str(tmp_path)]


def test_a_checkpoint_is_pulled_where_the_file_system_names_another_owner(run, tmp_path, monkeypatch):
    """NFS with root_squash, CIFS."""
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    best = list_checkpoints(str(run))[0]
    pull(best, tmp_path / "best", quiet=True)
    assert {path.name for path in (tmp_path / "best").iterdir()} >= {file.name for file in best.files}


def test_a_planted_download_folder_is_refused(run, tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / ".best.partial").symlink_to(tmp_path / "victim")
    with pytest.raises(ValueError, match="another user may have planted it"):
        pull(list_checkpoints(str(run))[0], tmp_path / "best", quiet=True)
    assert list((tmp_path / "victim").iterdir()) == []


def test_checkpoints_are_fetched_by_uri_run_or_bundled_name(run):
    assert fetch_checkpoint(str(run)) == best_checkpoint(str(run))
    assert fetch_checkpoint(str(run / step_folder(20))) == str(run / step_folder(20))
    assert fetch_checkpoint("small") == shipped_weights()["small"]


def test_an_empty_folder_says_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"holds no complete checkpoint; it holds notes\.txt"):
        list_checkpoints(str(tmp_path))


def test_another_upload_of_a_step_overwrites_its_files_and_deletes_none(run):
    """Another process with the run's name may be writing the same files at the same time."""
    folder = run / step_folder(40)  # interrupted before its manifest
    (folder / "other.bin").write_bytes(b"of the other process")
    local = folder.parent.parent / "local_40"
    (local / WEIGHTS_NAME).write_bytes(b"new weights")
    upload(local, str(folder))
    verify(folder)
    assert (folder / WEIGHTS_NAME).read_bytes() == b"new weights" and (folder / "other.bin").exists()
    upload(local, str(folder))  # also over a complete one
    verify(folder)
