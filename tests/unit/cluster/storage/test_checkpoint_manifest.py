"""The manifest of a checkpoint: what is accepted, and that nothing else is."""

import json

import pytest

from cluster.storage.checkpoint_manifest import MAX_FILE_BYTES, MAX_FILES, StoredFile, parse_manifest
from textscanner.errors import UserError

FILE = {"name": "weights.safetensors", "num_bytes": 3, "sha256": "0" * 64}
MANIFEST = {"step": 7, "metrics": {"val/loss": 1.5}, "files": [FILE]}


def parse(**changes):
    return parse_manifest("uri", json.dumps(MANIFEST | changes).encode())


def test_a_manifest_is_parsed():
    checkpoint = parse()
    assert (checkpoint.step, checkpoint.metrics, checkpoint.num_bytes) == (7, {"val/loss": 1.5}, 3)
    assert checkpoint.files == (StoredFile(**FILE),)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "checkpoint_manifest.json"},
        {"name": "a" * 201},
        {"name": "né"},
        {"name": "a\n"},
        {"name": None},
        {"num_bytes": -1},
        {"num_bytes": MAX_FILE_BYTES + 1},
        {"num_bytes": 1.5},
        {"num_bytes": True},
        {"sha256": "0" * 63},
        {"sha256": "G" * 64},
        {"mode": 0o4755},
    ],
)
def test_an_impossible_file_is_refused(changes):
    with pytest.raises(UserError, match="the checkpoint is damaged"):
        parse(files=[FILE | changes])


@pytest.mark.parametrize(
    "changes",
    [
        {"step": -1},
        {"step": "7"},
        {"step": 10**8},
        {"metrics": {"loss": "low"}},
        {"metrics": [1]},
        {"files": {}},
        {"files": [FILE, FILE]},
        {"files": [FILE, FILE | {"name": "Weights.safetensors"}]},
        {"files": [FILE | {"name": f"{i}"} for i in range(MAX_FILES + 1)]},
    ],
)
def test_an_impossible_manifest_is_refused(changes):
    with pytest.raises(UserError, match="the checkpoint is damaged"):
        parse(**changes)
