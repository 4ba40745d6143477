"""Reading with ONNX Runtime: same words as the checkpoint, in order, without TensorFlow."""

import pathlib
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest

import textscanner
from textscanner.checkpoint_files import CONFIG_NAME, DEFAULT_WEIGHTS, ONNX_NAME
from textscanner.data.images import decode
from textscanner.errors import UserError
from textscanner.inference.onnx_reader import OnnxReader

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


@pytest.fixture
def bundled(tmp_path):
    """A copy of the bundled weights, to damage."""
    return pathlib.Path(shutil.copytree(ROOT / "textscanner" / "weights" / DEFAULT_WEIGHTS, tmp_path / "bundled"))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (CONFIG_NAME, b"{", "is damaged: .*; use another checkpoint"),
        (CONFIG_NAME, None, "does not exist: .* is not a checkpoint"),
        (CONFIG_NAME, b"{}", ": preset is "),
        (ONNX_NAME, b"not a model", "cannot be opened: .*; export the checkpoint as ONNX again"),
    ],
)
def test_a_damaged_file_is_a_user_error_that_names_it(bundled, name, content, problem):
    path = bundled / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"^{path} ?{problem}"):
        OnnxReader(bundled)


def test_a_model_that_was_exported_elsewhere_is_a_user_error(bundled):
    model = onnx.load(bundled / ONNX_NAME)
    del model.metadata_props[:]
    onnx.save(model, bundled / ONNX_NAME)
    with pytest.raises(UserError, match=f"^{bundled / ONNX_NAME} is not a model that this package exported"):
        OnnxReader(bundled)
