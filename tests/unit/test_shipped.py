"""The weights that the package brings read words without anything else."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

import textscanner
from cluster.storage.checkpoints import fetch_checkpoint
from textscanner.checkpoint_files import DEFAULT_WEIGHTS, WEIGHTS_FOLDER, shipped_weights
from textscanner.data.images import decode

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(shipped_weights()))
def test_shipped_weights_read_clear_print(name, words):
    reader = textscanner.load(name)
    read = reader.read([decode(record.image, record.source) for record in words])
    right = sum(a.text == b.text.lower() for a, b in zip(read, words, strict=True))
    assert right > 0.7 * len(words)
    assert fetch_checkpoint(name) == shipped_weights()[name]


def test_batches_on_all_cores_keep_the_order(words):
    reader = textscanner.load_fast(DEFAULT_WEIGHTS)
    images = [decode(record.image, record.source) for record in words]
    alone = [reader.read([image])[0].text for image in images]
    assert [reading.text for reading in reader.read(images)] == alone
    assert len(set(alone)) > len(words) / 2
    assert reader.read([]) == []


def test_every_folder_of_weights_is_whole_and_small():
    folders = [path for path in WEIGHTS_FOLDER.glob("*") if path.is_dir()]
    assert {path.name for path in folders} == set(shipped_weights())
    for folder in folders:
        assert (folder / "MODEL_CARD.md").exists()
        assert sum(path.stat().st_size for path in folder.iterdir()) < 12e6


def test_onnx_reads_what_the_checkpoint_reads_and_needs_no_tensorflow(words, tmp_path):
    path = tmp_path / "word.jpg"
    path.write_bytes(words[0].image)
    told = (
        "import sys; from jobs.read import main; assert main(sys.argv[1:]) == 0; "
        "assert not {'tensorflow', 'keras', 'ray', 'boto3'} & set(sys.modules), 'slow to start'"
    )
    done = subprocess.run([sys.executable, "-c", told, str(path)], check=True, capture_output=True, text=True, cwd=ROOT)
    images = [decode(record.image, record.source) for record in words]
    slow, fast = textscanner.load(DEFAULT_WEIGHTS).read(images), textscanner.load_fast(DEFAULT_WEIGHTS).read(images)
    assert done.stdout.split("\t")[1] == fast[0].text
    alike = [(a, b) for a, b in zip(fast, slow, strict=True) if a.text == b.text]
    assert len(alike) >= 0.95 * len(words)  # it may compute with 8 bits
    for a, b in alike:
        assert [c.x_px for c in a.characters] == pytest.approx([c.x_px for c in b.characters], abs=1)
    assert np.mean([abs(a.confidence - b.confidence) for a, b in alike]) < 0.02
