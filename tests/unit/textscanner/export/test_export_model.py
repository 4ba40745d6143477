"""Exported models read what their checkpoint reads, in processes that do not know this package."""

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
from textscanner.data.images import decode
from textscanner.export.export_model import FORMATS, METADATA_NAME, compare, export, noise, open_exported

EXAMPLE = pathlib.Path(__file__).parents[4] / "docs" / "read_onnx.py"

SAVED_MODEL_ALONE = """
import sys, numpy as np, tensorflow as tf
run = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
ids = run(image=tf.constant(np.load(sys.argv[2])))["ids"].numpy()
assert not any(name.split(".")[0] in ("textscanner", "cluster", "jobs") for name in sys.modules)
np.save(sys.argv[3], ids)
"""


@pytest.fixture(scope="module")
def reader(learnt):
    return textscanner.load(learnt.checkpoint)


@pytest.fixture(scope="module")
def images(learnt):
    return [decode(record.image, record.source) for record in learnt.words[:32]]


@pytest.fixture(scope="module", params=FORMATS)
def exported(request, reader, tmp_path_factory):
    return export(reader, request.param, tmp_path_factory.mktemp("export") / request.param)


def test_exported_models_read_the_same_words_in_batches_of_any_size(exported, reader, images):
    run = open_exported(exported)
    assert len(images) % 64 != 0
    found = compare(reader, run, [*noise(reader), *images])
    assert found.num_words == 64 + len(images)
    assert (found.num_different, found.confidence_gap) == (0, pytest.approx(0, abs=1e-4))
    with pytest.raises(ValueError, match="there already"):
        export(reader, "onnx" if exported.suffix == ".onnx" else _format_of(exported), exported.parent)


def _format_of(path):
    return "litert" if path.suffix == ".tflite" else "saved_model"


def test_a_network_trained_in_bfloat16_is_exported_in_float32(learnt, images, tmp_path):
    folder = tmp_path / "bfloat16"
    shutil.copytree(learnt.checkpoint, folder)
    told = json.loads((folder / CONFIG_NAME).read_text())
    told["optimizer"]["precision"] = "bfloat16"
    (folder / CONFIG_NAME).write_text(json.dumps(told))
    trained = textscanner.load(str(folder))
    assert "bfloat16" in {layer.compute_dtype for layer in trained.model.layers}
    found = compare(trained.in_float32(), open_exported(export(trained, "onnx", tmp_path / "out")), images)
    assert (found.num_different, found.confidence_gap) == (0, pytest.approx(0, abs=1e-4))


def test_the_onnx_example_reads_without_this_package(reader, learnt, tmp_path):
    model = export(reader, "onnx", tmp_path, half=True)
    paths = []
    for i, record in enumerate(learnt.words[:5]):
        paths.append(str(tmp_path / f"{i}.png"))
        cv2.imwrite(paths[-1], decode(record.image, record.source)[..., ::-1])
    told = subprocess.run(
        [sys.executable, str(EXAMPLE), str(model), *paths], check=True, capture_output=True, text=True, cwd=tmp_path
    ).stdout
    wanted = [reading.text for reading in learnt.readings[:5]]
    assert [line.split("\t")[1] for line in told.splitlines()] == wanted
    assert "textscanner" not in EXAMPLE.read_text().replace('["textscanner"]', "")
    assert len(EXAMPLE.read_text().splitlines()) <= 40
    assert json.loads((tmp_path / METADATA_NAME).read_text())["characters"] == reader.charset.characters


def test_a_saved_model_reads_without_this_package(reader, images, tmp_path):
    from textscanner.data.images import fit

    model = export(reader, "saved_model", tmp_path)
    inputs = np.stack([fit(image, reader.config.model)[0] for image in images])
    np.save(tmp_path / "inputs.npy", inputs)
    given = [str(model), str(tmp_path / "inputs.npy"), str(tmp_path / "ids.npy")]
    subprocess.run([sys.executable, "-c", SAVED_MODEL_ALONE, *given], check=True, capture_output=True, cwd=tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "ids.npy"), reader.decode_batch(inputs).ids)
