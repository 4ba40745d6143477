"""An exported model reads what its checkpoint reads, in processes that know nothing of this package."""

import json
import pathlib
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

import textscanner
from jobs.export import main
from tests.factories import write_dataset
from textscanner.checkpoint_files import CONFIG_NAME
from textscanner.data.images import decode
from textscanner.export.export_model import FORMATS, METADATA_NAME, compare, export, noise, open_exported

EXAMPLE = pathlib.Path(__file__).parents[2] / "docs" / "read_onnx.py"
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


def test_the_same_words_are_read_in_batches_of_any_size(exported, reader, images):
    run = open_exported(exported)
    assert len(images) % 64 != 0
    found = compare(reader, run, [*noise(reader), *images])
    assert found.num_words == 64 + len(images)
    assert (found.num_different, found.confidence_gap) == (0, pytest.approx(0, abs=1e-4))
    with pytest.raises(ValueError, match="there already"):
        export(reader, "onnx" if exported.suffix == ".onnx" else _format_of(exported), exported.parent)


def test_a_model_that_reads_otherwise_is_found_out(exported, learnt, images):
    other = textscanner.load(learnt.checkpoint)
    other.model.get_layer("class_logits").kernel.assign(-other.model.get_layer("class_logits").kernel)
    assert compare(other, open_exported(exported), images).num_different > len(images) / 2


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


@pytest.fixture(scope="module")
def int8(reader, images, tmp_path_factory):
    return export(reader, "onnx", tmp_path_factory.mktemp("int8"), half=True, calibration=images)


def test_eight_bits_read_the_words_that_are_known(int8, reader, images, learnt):
    import onnx

    texts = [record.text for record in learnt.words]
    found = compare(reader, open_exported(int8), images, texts)
    assert found.num_different <= 1 and found.num_sure > len(images) / 2 and found.num_sure_different == 0
    assert found.wanted.num_words == len(images)
    assert found.got.num_correct >= found.wanted.num_correct - 1
    model = onnx.load(str(int8))
    assert {node.domain for node in model.graph.node} == {""} == {opset.domain for opset in model.opset_import}
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    kernels = [array for array in weights if array.dtype == np.int8 and array.ndim == 4]
    assert len(kernels) == sum(node.op_type == "Conv" for node in model.graph.node)
    assert max(np.abs(kernel.astype(int)).max() for kernel in kernels) <= 64  # 7 bits: sums of two products fit 16
    assert json.loads((int8.parent / METADATA_NAME).read_text())["weights"] == "int8"


def test_eight_bits_make_the_file_smaller(int8, reader, tmp_path):
    plain = export(reader, "onnx", tmp_path)  # tiny: more graph than weights
    assert int8.stat().st_size < 0.75 * plain.stat().st_size


def test_a_calibration_that_saw_no_word_is_found_out(learnt, tmp_path, capsys):
    known = write_dataset(str(tmp_path / "known"), learnt.words)
    blank = tmp_path / "blank"
    blank.mkdir()
    cv2.imwrite(str(blank / "0.png"), np.full((32, 128, 3), 127, np.uint8))
    given = [learnt.checkpoint, "--format", "onnx", "--int8", "--out", str(tmp_path / "out")]
    assert main([*given, "--calibrate", str(blank), "--check", known]) == 1
    told = capsys.readouterr()
    assert "sure of differ: --max-different is 5" in told.err
    assert f"{known}: {len(learnt.words)} images" in told.out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--format", "onnx", "--int8", "--calibrate", "EMPTY"], "which holds no image"),
        (["--format", "onnx", "--calibrate", "EMPTY"], "--calibrate is for --int8"),
        (["--format", "litert", "--fp16-weights"], "--fp16-weights and --int8 are for onnx"),
    ],
)
def test_what_cannot_be_quantized_is_a_sentence(flags, sentence, learnt, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    told = [str(empty) if flag == "EMPTY" else flag for flag in flags]
    assert main([learnt.checkpoint, "--out", str(tmp_path / "out"), *told]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def _format_of(path):
    return "litert" if path.suffix == ".tflite" else "saved_model"


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
