"""The weights that the package brings read words without anything else."""

import pytest

import textscanner
from cluster.checkpoints import local_checkpoint
from textscanner.images import decode
from textscanner.layout import WEIGHTS_FOLDER, shipped_weights


@pytest.mark.parametrize("name", sorted(shipped_weights()))
def test_shipped_weights_read_clear_print(name, words):
    reader = textscanner.load(name)
    read = reader.read([decode(record.image, record.source) for record in words])
    right = sum(a.text == b.text.lower() for a, b in zip(read, words, strict=True))
    assert right > 0.7 * len(words)
    assert local_checkpoint(name) == shipped_weights()[name]


def test_every_folder_of_weights_is_whole_and_small():
    folders = [path for path in WEIGHTS_FOLDER.glob("*") if path.is_dir()]
    assert {path.name for path in folders} == set(shipped_weights())
    for folder in folders:
        assert (folder / "MODEL_CARD.md").exists()
        assert sum(path.stat().st_size for path in folder.iterdir()) < 12e6
