"""Reading with ONNX Runtime: same words as the checkpoint, in order, without TensorFlow."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

import textscanner
from textscanner.checkpoint_files import DEFAULT_WEIGHTS
from textscanner.data.images import decode

ROOT = pathlib.Path(__file__).parents[4]


def test_parallel_batches_keep_the_order(words):
    reader = textscanner.load_fast(DEFAULT_WEIGHTS)
    images = [decode(record.image, record.source) for record in words]
    single = [reader.read([image])[0].text for image in images]
    assert [reading.text for reading in reader.read(images)] == single
    assert len(set(single)) > len(words) / 2
    assert reader.read([]) == []


def test_onnx_reader_agrees_with_the_checkpoint_and_loads_no_tensorflow(words, tmp_path):
    path = tmp_path / "word.jpg"
    path.write_bytes(words[0].image)
    code = (
        "import sys; from jobs.read import main; assert main(sys.argv[1:]) == 0; "
        "assert not {'tensorflow', 'keras', 'ray', 'boto3'} & set(sys.modules), 'a heavy package was imported'"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True, cwd=ROOT
    )
    images = [decode(record.image, record.source) for record in words]
    slow, fast = textscanner.load(DEFAULT_WEIGHTS).read(images), textscanner.load_fast(DEFAULT_WEIGHTS).read(images)
    assert process.stdout.split("\t")[1] == fast[0].text
    alike = [(a, b) for a, b in zip(fast, slow, strict=True) if a.text == b.text]
    assert len(alike) >= 0.95 * len(words)  # it may compute with 8 bits
    for a, b in alike:
        assert [c.x_px for c in a.characters] == pytest.approx([c.x_px for c in b.characters], abs=1)
    assert np.mean([abs(a.confidence - b.confidence) for a, b in alike]) < 0.02
