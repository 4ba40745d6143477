"""Exported models read what their checkpoint reads, in processes that do not know this package."""

import ast
import json
import pathlib
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

import textscanner
from textscanner.checkpoint_files import CONFIG_NAME
from textscanner.data.images import decode, fit
from textscanner.errors import UserError
from textscanner.export.compare import NUM_NOISE_IMAGES, compare, noise
from textscanner.export.export_model import FILE_NAMES, FORMATS, export, open_exported
from textscanner.export.metadata import METADATA_NAME
from textscanner.inference.decode import Decoded
from textscanner.inference.export_outputs import EXPORT_OUTPUTS, INPUT_NAME, OUTPUT_NAMES

EXAMPLE = pathlib.Path(__file__).parents[4] / "docs" / "read_onnx.py"

READ_SAVED_MODEL = """
import sys, numpy as np, tensorflow as tf
run = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
ids = run(image=tf.constant(np.load(sys.argv[2])))["ids"].numpy()
assert not any(name.split(".")[0] in ("textscanner", "cluster", "jobs") for name in sys.modules)
np.save(sys.argv[3], ids)
"""


def test_exported_models_read_the_same_words_in_batches_of_any_size(exported, reader, images):
    assert len(images) % NUM_NOISE_IMAGES != 0
    comparison = compare(reader, open_exported(exported), [*noise(reader), *images])
    assert comparison.num_words == NUM_NOISE_IMAGES + len(images)
    assert (comparison.num_different, comparison.confidence_gap) == (0, pytest.approx(0, abs=1e-4))


def test_an_existing_export_is_not_overwritten(exported, reader):
    (format_name,) = [name for name in FORMATS if FILE_NAMES[name] == exported.name]
    with pytest.raises(UserError, match="already exists"):
        export(reader, format_name, exported.parent)


def test_every_format_has_the_documented_outputs(exported, reader):
    outputs = open_exported(exported)(np.stack(noise(reader)[:2]))
    assert set(outputs) == set(OUTPUT_NAMES)
    assert {output.field for output in EXPORT_OUTPUTS} <= set(Decoded._fields)
    metadata = json.loads((exported.parent / METADATA_NAME).read_text())
    assert (metadata["input"]["name"], tuple(metadata["outputs"])) == (INPUT_NAME, OUTPUT_NAMES)


def test_a_network_trained_in_bfloat16_is_exported_in_float32(overfitted, images, tmp_path):
    folder = tmp_path / "bfloat16"
    shutil.copytree(overfitted.checkpoint, folder)
    values = json.loads((folder / CONFIG_NAME).read_text())
    values["optimizer"]["precision"] = "bfloat16"
    (folder / CONFIG_NAME).write_text(json.dumps(values))
    trained = textscanner.load(str(folder))
    assert "bfloat16" in {layer.compute_dtype for layer in trained.model.layers}
    comparison = compare(trained.in_float32(), open_exported(export(trained, "onnx", tmp_path / "out")), images)
    assert (comparison.num_different, comparison.confidence_gap) == (0, pytest.approx(0, abs=1e-4))


def test_the_onnx_example_reads_without_this_package(reader, overfitted, tmp_path):
    model = export(reader, "onnx", tmp_path, fp16_weights=True)
    paths = []
    for i, record in enumerate(overfitted.words[:5]):
        paths.append(str(tmp_path / f"{i}.png"))
        cv2.imwrite(paths[-1], decode(record.image, record.source)[..., ::-1])
    stdout = subprocess.run(
        [sys.executable, str(EXAMPLE), str(model), *paths], check=True, capture_output=True, text=True, cwd=tmp_path
    ).stdout
    assert [line.split("\t")[1] for line in stdout.splitlines()] == [r.text for r in overfitted.readings[:5]]
    assert "textscanner" not in EXAMPLE.read_text().replace('["textscanner"]', "")
    assert len(EXAMPLE.read_text().splitlines()) <= 40
    assert json.loads((tmp_path / METADATA_NAME).read_text())["characters"] == reader.charset.characters


def test_the_onnx_example_names_existing_inputs_and_outputs():
    """The example stands alone, so it states the names once more."""
    (call,) = [
        node
        for node in ast.walk(ast.parse(EXAMPLE.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "session.run"
    ]
    assert set(ast.literal_eval(call.args[0])) <= set(OUTPUT_NAMES)
    assert [key.value for key in call.args[1].keys] == [INPUT_NAME]


def test_a_saved_model_reads_without_this_package(reader, images, tmp_path):
    model = export(reader, "saved_model", tmp_path)
    inputs = np.stack([fit(image, reader.config.model)[0] for image in images])
    np.save(tmp_path / "inputs.npy", inputs)
    arguments = [str(model), str(tmp_path / "inputs.npy"), str(tmp_path / "ids.npy")]
    subprocess.run([sys.executable, "-c", READ_SAVED_MODEL, *arguments], check=True, capture_output=True, cwd=tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "ids.npy"), reader.decode_batch(inputs).ids)
