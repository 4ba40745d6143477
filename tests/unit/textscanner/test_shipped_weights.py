"""The bundled weights: complete, small, up to date with the code, and able to read clear print."""

import json

import onnxruntime
import pytest

import textscanner
from cluster.storage.checkpoints import fetch_checkpoint
from textscanner.checkpoint_files import CONFIG_NAME, ONNX_NAME, WEIGHTS_FOLDER, shipped_weights
from textscanner.config import Config
from textscanner.data.images import decode
from textscanner.export.metadata import export_metadata
from textscanner.export.onnx_format import METADATA_KEY
from textscanner.inference.export_outputs import EXPORT_OUTPUTS


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


@pytest.mark.parametrize("name", sorted(shipped_weights()))
def test_shipped_configs_state_every_key(name):
    values = json.loads((WEIGHTS_FOLDER / name / CONFIG_NAME).read_text())
    assert values == json.loads(json.dumps(Config.from_dict(values).to_dict()))


def onnx_files():
    return sorted(WEIGHTS_FOLDER.glob(f"*/{ONNX_NAME}"))


@pytest.mark.parametrize("path", onnx_files(), ids=lambda path: path.parent.name)
def test_metadata_of_shipped_onnx_files_is_what_export_writes(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    metadata = json.loads(session.get_modelmeta().custom_metadata_map[METADATA_KEY])
    assert metadata["outputs"] == {output.name: output.description for output in EXPORT_OUTPUTS}
    assert metadata["weights"] == "int8"
    assert metadata == export_metadata(textscanner.load(path.parent), "int8")
