"""8-bit quantization of an exported network."""

import json

import numpy as np
import pytest

import textscanner
from textscanner.data.images import decode
from textscanner.export.export_model import METADATA_NAME, compare, export, open_exported


@pytest.fixture(scope="module")
def reader(learnt):
    return textscanner.load(learnt.checkpoint)


@pytest.fixture(scope="module")
def images(learnt):
    return [decode(record.image, record.source) for record in learnt.words[:32]]


@pytest.fixture(scope="module")
def int8(reader, images, tmp_path_factory):
    return export(reader, "onnx", tmp_path_factory.mktemp("int8"), half=True, calibration=images)


def test_int8_reads_the_calibration_words(int8, reader, images, learnt):
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


def test_int8_makes_the_file_smaller(int8, reader, tmp_path):
    plain = export(reader, "onnx", tmp_path)  # tiny: more graph than weights
    assert int8.stat().st_size < 0.75 * plain.stat().st_size
