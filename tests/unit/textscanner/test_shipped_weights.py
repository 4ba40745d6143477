"""The bundled weights: complete, small, and able to read clear print."""

import pytest

import textscanner
from cluster.storage.checkpoints import fetch_checkpoint
from textscanner.checkpoint_files import WEIGHTS_FOLDER, shipped_weights
from textscanner.data.images import decode


@pytest.mark.parametrize("name", sorted(shipped_weights()))
def test_shipped_weights_read_clear_print(name, words):
    reader = textscanner.load(name)
    read = reader.read([decode(record.image, record.source) for record in words])
    right = sum(a.text == b.text.lower() for a, b in zip(read, words, strict=True))
    assert right > 0.7 * len(words)
    assert fetch_checkpoint(name) == shipped_weights()[name]


def test_every_weights_folder_is_complete_and_small():
    folders = [path for path in WEIGHTS_FOLDER.glob("*") if path.is_dir()]
    assert {path.name for path in folders} == set(shipped_weights())
    for folder in folders:
        assert (folder / "MODEL_CARD.md").exists()
        assert sum(path.stat().st_size for path in folder.iterdir()) < 12e6
