"""Importing from a bucket into a bucket: every format, and resuming after a kill."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from cluster.data.dataset_writer import PARTS_NAME, REJECTS_NAME, SAMPLES_NAME
from cluster.data.shards import read_manifest, read_records
from cluster.storage.location import open_uri
from jobs.prepare import main as prepare_job
from tests import formats
from textscanner.data.schema import DATASET_MANIFEST_NAME

pytestmark = [pytest.mark.storage, pytest.mark.cluster]


def put(folder: pathlib.Path, uri: str) -> None:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        open_uri(uri).join(path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())


@pytest.mark.parametrize("name", formats.FORMATS)
def test_a_format_is_imported_from_a_bucket_into_a_bucket(name, ray_session, words, bucket, tmp_path, capsys):
    write, _, with_quads = formats.FORMATS[name]
    write(tmp_path, words[:7])
    put(tmp_path, f"{bucket}/source")
    assert prepare_job([f"{bucket}/source", "--out", f"{bucket}/out"]) == 0
    output = capsys.readouterr().out
    assert f"7 words ({7 if with_quads else 0} with character quads)" in output
    assert sorted(r.text for r in read_records(f"{bucket}/out")) == sorted(r.text for r in words[:7])
    names = list(open_uri(f"{bucket}/out").walk())
    assert {DATASET_MANIFEST_NAME, SAMPLES_NAME, REJECTS_NAME} < set(names)
    assert not any(name.startswith(PARTS_NAME) for name in names)


def test_a_killed_import_resumes_and_keeps_complete_parts(words, bucket, tmp_path):
    """6 parts; SIGKILL once the first is complete. The shards of complete parts keep their time stamps."""
    (tmp_path / "a.jpg").write_bytes(words[0].image)
    rows = [("nowhere.jpg" if i % 1000 == 0 else "a.jpg", words[0].text) for i in range(6 * 1024)]
    (tmp_path / "labels.tsv").write_text("".join(f"{file}\t{text}\n" for file, text in rows))
    out = open_uri(f"{bucket}/out")
    command = [sys.executable, "-m", "jobs.prepare", str(tmp_path), "--out", out.uri]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    complete: list[str] = []
    while not complete and time.monotonic() < deadline:
        complete = [name for name, _ in out.join(PARTS_NAME).names() if name[0].isdigit()]
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert complete and not out.join(DATASET_MANIFEST_NAME).exists()
    shards = {shard["name"] for name in complete for shard in _part_info(out, name)["shards"]}
    before = {name: out.join(name).version() for name in shards}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert {name: out.join(name).version() for name in shards} == before
    manifest = read_manifest(out.uri)
    assert manifest.num_rows == 6 * 1024 - 7 and manifest.reject_counts == {"missing_image": 7}
    assert len(out.join(REJECTS_NAME).read_bytes().splitlines()) == 7
    assert not out.join(PARTS_NAME).names()


def _part_info(out, name):
    return json.loads(out.join(PARTS_NAME, name).read_bytes())


def test_an_unfinished_import_with_other_settings_starts_over(ray_session, words, bucket, tmp_path):
    formats.tsv(tmp_path, words[:5])
    assert prepare_job([str(tmp_path), "--out", f"{bucket}/out", "--max-label-length", "2"]) == 2  # all too long
    assert open_uri(f"{bucket}/out").join(PARTS_NAME).names()
    assert prepare_job([str(tmp_path), "--out", f"{bucket}/out"]) == 0
    assert read_manifest(f"{bucket}/out").num_rows == 5


def test_shards_respect_the_size_limit(ray_session, words, bucket, tmp_path):
    big = [record for record in words[:4] for _ in range(200)]
    formats.lmdb_file(tmp_path, big)
    assert prepare_job([str(tmp_path), "--out", f"{bucket}/out", "--shard-mib", "1"]) == 0
    manifest = read_manifest(f"{bucket}/out")
    num_bytes = sum(len(record.image) for record in big)
    assert len(manifest.shards) == -(-num_bytes // (1 << 20)) > 1
    assert [r.text for r in read_records(f"{bucket}/out")] == [r.text for r in big]


def test_a_missing_bucket_is_named(ray_session, object_store, tmp_path, capsys):
    assert prepare_job(["s3://no-such-bucket/x", "--out", str(tmp_path / "out")]) in (1, 2)
    assert "no-such-bucket" in capsys.readouterr().err
