"""Pulling checkpoints from a bucket without a cluster: complete ones only, verified, interrupted downloads resumed."""

import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys

import pytest

import textscanner
from cluster.storage.checkpoints import (
    fetch_checkpoint,
    latest_valid,
    list_checkpoints,
    pull,
    upload,
)
from cluster.storage.location import open_uri
from cluster.storage.retention import prune
from jobs.pull import main as pull_job
from textscanner.checkpoint_files import CHECKPOINT_MANIFEST_NAME, STATE_NAME, TRAINING_NAME, WEIGHTS_NAME
from textscanner.config import BEST_METRIC
from textscanner.data.images import decode

pytestmark = pytest.mark.storage


@pytest.fixture
def run(bucket, overfitted, tmp_path):
    """A run with checkpoints at steps 10 (best), 20 and 30, and one at 40 whose upload was interrupted."""
    for step, accuracy in ((10, 0.9), (20, 0.5), (30, 0.7)):
        folder = tmp_path / "local" / str(step)
        shutil.copytree(overfitted.checkpoint, folder)
        state = json.loads((folder / STATE_NAME).read_text())
        state |= {"step": step, "metrics": {BEST_METRIC: accuracy}}
        (folder / STATE_NAME).write_text(json.dumps(state))
        upload(folder, f"{bucket}/run/step_{step:08d}")
    incomplete = open_uri(f"{bucket}/run/step_00000040")
    incomplete.join(STATE_NAME).write_bytes(b"{}")
    incomplete.join(WEIGHTS_NAME).write_bytes(b"half")
    return f"{bucket}/run"


def test_only_complete_checkpoints_are_listed_and_the_best_is_pulled(run, overfitted, tmp_path, capsys):
    assert [c.step for c in list_checkpoints(run)] == [10, 20, 30]
    assert pull_job([run, "--list"]) == 0
    listed = capsys.readouterr().out
    assert "90.0%" in listed and "40" not in re.findall(r"│\s+(\d+)\s+│", listed)
    for flags, step in (([], 10), (["--last"], 30), (["--step", "20"], 20), (["--mode", "min"], 20)):
        assert pull_job([run, *flags, "--to", str(tmp_path / f"to{step}{''.join(flags)}")]) == 0
        assert f"step {step}" in capsys.readouterr().out
    assert pull_job([run, "--to", f"{run}-copy"]) == 2
    assert "must be a folder on this machine" in capsys.readouterr().err
    image = decode(overfitted.words[0].image, "")
    assert textscanner.load(str(tmp_path / "to10")).read([image]) == overfitted.readings[:1]
    assert textscanner.load(fetch_checkpoint(run)).read([image]) == overfitted.readings[:1]


def test_retention_keeps_the_best_and_the_two_newest(run):
    """Steps 10, 20, 30 have accuracy 0.9, 0.5, 0.7; the incomplete 40 is not deleted: its upload may be in progress."""
    open_uri(f"{run}/step_00000005").join(WEIGHTS_NAME).write_bytes(b"of a deletion that was interrupted just now")
    assert prune(run, BEST_METRIC, 1) == []  # 10 is the best, 20 and 30 are the newest
    manifest = open_uri(f"{run}/step_00000030").join(CHECKPOINT_MANIFEST_NAME).read_bytes()
    open_uri(f"{run}/step_00000040").join(CHECKPOINT_MANIFEST_NAME).write_bytes(manifest.replace(b": 30,", b": 40,"))
    assert prune(run, BEST_METRIC, 1) == [20]
    assert [c.step for c in list_checkpoints(run)] == [10, 30, 40]
    assert open_uri(f"{run}/step_00000005").names()


def test_resuming_skips_a_damaged_checkpoint(run):
    location = open_uri(f"{run}/step_00000030").join(TRAINING_NAME)
    location.write_bytes(bytes(100) + location.read_bytes()[100:])
    (checkpoint, folder), damaged = latest_valid(run)
    assert len(damaged) == 1 and "step_00000030" in damaged[0]
    assert checkpoint.step == 20 and json.loads((pathlib.Path(folder) / STATE_NAME).read_text())["step"] == 20
    assert latest_valid(f"{run}/nothing") == (None, [])


@pytest.mark.parametrize("damage", ["empty manifest", "large manifest", "missing", "short", "empty", "traversal"])
def test_resuming_skips_a_checkpoint_whose_objects_are_missing_short_or_misnamed(run, damage):
    location = open_uri(f"{run}/step_00000030")
    manifest, weights = location.join(CHECKPOINT_MANIFEST_NAME), location.join(WEIGHTS_NAME)
    if damage == "empty manifest":
        manifest.write_bytes(b"")
    elif damage == "large manifest":
        manifest.write_bytes(manifest.read_bytes() + b" " * (2 << 20))
    elif damage == "missing":
        weights.delete()
    elif damage == "short":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "empty":
        weights.write_bytes(b"")
    else:
        manifest.write_bytes(manifest.read_bytes().replace(WEIGHTS_NAME.encode(), b"../../" + WEIGHTS_NAME.encode()))
    (checkpoint, folder), damaged = latest_valid(run)
    assert checkpoint.step == 20 and json.loads((pathlib.Path(folder) / STATE_NAME).read_text())["step"] == 20
    assert len(damaged) == 1 and "step_00000030" in damaged[0]
    assert [c.step for c in list_checkpoints(run)][:2] == [10, 20]


def test_an_interrupted_download_resumes_and_an_incomplete_folder_stays_hidden(run, tmp_path):
    (best, *_) = list_checkpoints(run)
    target, partial = tmp_path / "best", tmp_path / ".best.partial"
    weights = next(file for file in best.files if file.name == WEIGHTS_NAME)
    whole = open_uri(best.uri).join(WEIGHTS_NAME).read_bytes()
    # The first half was downloaded, then the object changed: the hash differs.
    partial.mkdir()
    (partial / WEIGHTS_NAME).write_bytes(whole[: len(whole) // 2])
    open_uri(best.uri).join(WEIGHTS_NAME).write_bytes(bytes(len(whole)))
    with pytest.raises(ValueError, match=r"weights\.safetensors does not have the SHA-256 of the manifest"):
        pull(best, target, quiet=True)
    assert not target.exists()
    # The downloaded half is reused: only the second half of the object in storage is correct.
    (partial / WEIGHTS_NAME).write_bytes(whole[: len(whole) // 2])
    open_uri(best.uri).join(WEIGHTS_NAME).write_bytes(bytes(len(whole) // 2) + whole[len(whole) // 2 :])
    pull(best, target, quiet=True)
    assert (target / WEIGHTS_NAME).stat().st_size == weights.num_bytes and not partial.exists()
    assert pull(best, target, quiet=True) == target  # already downloaded
    (target / TRAINING_NAME).write_bytes(b"other")
    with pytest.raises(ValueError, match="choose another folder"):
        pull(best, target, quiet=True)


def test_user_errors_name_what_there_is(run, bucket, tmp_path, capsys):
    to = ["--to", str(tmp_path / "to")]
    assert pull_job([f"{bucket}/nowhere", *to]) == 2
    assert "holds no complete checkpoint; it holds nothing" in capsys.readouterr().err
    assert pull_job(["s3://no-such-bucket/run", *to]) in (1, 2)
    assert "no-such-bucket" in capsys.readouterr().err
    assert pull_job([run, "--metric", "val/nothing", *to]) == 2
    assert f"available: {BEST_METRIC}" in capsys.readouterr().err
    assert pull_job([run, "--step", "7", *to]) == 2
    assert "the run has steps 10, 20, 30" in capsys.readouterr().err
    assert pull_job([run]) == 2
    assert "--to is missing" in capsys.readouterr().err


def test_an_upload_replaces_an_interrupted_one(run, overfitted):
    """Its files are overwritten; a file that is not this upload's may be another process's, and is left alone."""
    uri = f"{run}/step_00000040"
    location = open_uri(uri)
    location.join("other").write_bytes(b"x")
    upload(overfitted.checkpoint, uri)
    own = {path.name for path in pathlib.Path(overfitted.checkpoint).iterdir()}
    assert {name for name, _ in location.names()} == own | {CHECKPOINT_MANIFEST_NAME, "other"}
    for name in own:
        assert location.join(name).read_bytes() == (pathlib.Path(overfitted.checkpoint) / name).read_bytes()
    newest = list_checkpoints(run)[-1]
    assert newest.uri == uri and {file.name for file in newest.files} == own


def test_the_object_store_command_starts_reports_and_stops(tmp_path):
    def job(verb):
        command = [sys.executable, "-m", "jobs.objectstore", verb, "--folder", str(tmp_path / "store")]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)

    assert job("status").returncode == 1
    started = job("start")
    try:
        assert started.returncode == 0, started.stderr
        assert "# s3://words" in started.stdout
        exports = dict(re.findall(r"export (\w+)=(\S+)", started.stdout))
        assert exports["AWS_ENDPOINT_URL_S3"].startswith("http://127.0.0.1:")
        assert job("start").stdout == started.stdout
        assert stat.S_IMODE((tmp_path / "store" / "server.json").stat().st_mode) == 0o600
        write = "from cluster.storage.location import open_uri; open_uri('s3://words/x').write_bytes(b'content')"
        subprocess.run([sys.executable, "-c", write], check=True, env=os.environ | exports)
        assert job("status").returncode == 0
        assert job("stop").returncode == 0 and job("status").returncode == 1
        restarted = job("start")
        assert restarted.returncode == 0
        exports = dict(re.findall(r"export (\w+)=(\S+)", restarted.stdout))
        read = "from cluster.storage.location import open_uri; print(open_uri('s3://words/x').read_bytes().decode())"
        done = subprocess.run(
            [sys.executable, "-c", read], check=True, env=os.environ | exports, capture_output=True, text=True
        )
        assert done.stdout.strip() == "content"
    finally:
        job("stop")
