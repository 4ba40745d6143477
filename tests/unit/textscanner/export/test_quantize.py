"""8-bit quantization of an exported network."""

import json

import numpy as np
import pytest

from textscanner.export.compare import compare
from textscanner.export.export_model import export, open_exported
from textscanner.export.metadata import METADATA_NAME


@pytest.fixture(scope="module")
def int8(reader, images, tmp_path_factory):
    return export(reader, "onnx", tmp_path_factory.mktemp("int8"), fp16_weights=True, calibration=images)


def test_int8_reads_the_calibration_words(int8, reader, images, overfitted):
    texts = [record.text for record in overfitted.words]
    comparison = compare(reader, open_exported(int8), images, texts)
    assert comparison.num_different <= 1
    assert comparison.num_sure > len(images) / 2 and comparison.num_sure_different == 0
    assert comparison.checkpoint_counts.num_words == len(images)
    assert comparison.exported_counts.num_correct >= comparison.checkpoint_counts.num_correct - 1


def test_int8_quantizes_every_convolution_to_seven_bits(int8):
    import onnx

    model = onnx.load(str(int8))
    assert {node.domain for node in model.graph.node} == {""} == {opset.domain for opset in model.opset_import}
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    kernels = [array for array in weights if array.dtype == np.int8 and array.ndim == 4]
    assert len(kernels) == sum(node.op_type == "Conv" for node in model.graph.node)
    assert max(np.abs(kernel.astype(int)).max() for kernel in kernels) <= 64  # sums of two products fit in 16 bits
    assert json.loads((int8.parent / METADATA_NAME).read_text())["weights"] == "int8"


def test_int8_makes_the_file_smaller(int8, reader, tmp_path):
    float_model = export(reader, "onnx", tmp_path)  # tiny: more graph than weights
    assert int8.stat().st_size < 0.75 * float_model.stat().st_size
