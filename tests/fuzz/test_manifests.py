"""Manifests of checkpoints and of data sets."""

import contextlib
import hashlib
import json
import pathlib

from hypothesis import given

from cluster.data.shards import read_manifest, read_row_group
from cluster.storage.checkpoints import fetch_checkpoint, latest_valid, list_checkpoints, pull, step_folder, verify
from tests.factories import rendered_records, write_dataset
from tests.fuzz.inputs import NAMES, changed_json, sandbox
from textscanner.checkpoint_files import CHECKPOINT_MANIFEST_NAME, STATE_NAME
from textscanner.data.schema import DATASET_MANIFEST_NAME
from textscanner.errors import UserError

CONTENT = b"{}"
FILE = {"name": STATE_NAME, "num_bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
CHECKPOINT = {"step": 7, "metrics": {"val/word_accuracy": 0.5}, "files": [FILE, FILE | {"name": "a.safetensors"}]}


def use_checkpoint(folder: pathlib.Path, manifest: bytes) -> None:
    """Lists, verifies, pulls and resumes from a run with this manifest; the files are there, beside the folder too."""
    checkpoint = folder / "run" / step_folder(7)
    checkpoint.mkdir(parents=True)
    for name in (STATE_NAME, "a.safetensors"):
        (checkpoint / name).write_bytes(CONTENT)
    (checkpoint / CHECKPOINT_MANIFEST_NAME).write_bytes(manifest)
    latest_valid(str(folder / "run"))
    for use in (
        lambda: verify(checkpoint),
        lambda: fetch_checkpoint(str(folder / "run")),
        lambda: pull(list_checkpoints(str(folder / "run"))[0], folder / "pulled", quiet=True),
    ):
        with contextlib.suppress(UserError):
            use()
    if (folder / "pulled").exists():
        assert all(path.is_file() for path in (folder / "pulled").iterdir())


@given(changed_json(CHECKPOINT))
def test_any_checkpoint_manifest(manifest):
    with sandbox() as folder:
        use_checkpoint(folder, manifest)


@given(NAMES)
def test_any_file_name_in_a_checkpoint_manifest(name):
    with sandbox() as folder:
        use_checkpoint(folder, json.dumps(CHECKPOINT | {"files": [FILE | {"name": name}]}).encode())


with sandbox() as _folder:
    write_dataset(str(_folder / "set"), rendered_records(4), num_shards=2)
    DATASET = {path.name: path.read_bytes() for path in (_folder / "set").iterdir()}


@given(changed_json(json.loads(DATASET[DATASET_MANIFEST_NAME])))
def test_any_manifest_of_a_data_set(manifest):
    with sandbox() as folder:
        for name, data in DATASET.items():
            (folder / name).write_bytes(data)
        (folder / DATASET_MANIFEST_NAME).write_bytes(manifest)
        try:
            read = read_manifest(str(folder))
        except UserError:
            return
        assert all((folder / shard.name).parent == folder for shard in read.shards)
        assert read.num_rows >= 0 and isinstance(read.characters, dict) and read.content_hash
        for shard in read.shards:
            for ref in shard.refs():
                with contextlib.suppress(UserError):
                    read_row_group(str(folder), ref)
