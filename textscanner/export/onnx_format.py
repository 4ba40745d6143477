"""ONNX: runs in ONNX Runtime. Weights may be stored as float16, convolutions may be quantized to 8 bits."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from textscanner.checkpoint_files import ONNX_NAME
from textscanner.export.exported_function import ExportedFunction, RunExported
from textscanner.export.quantize import quantize
from textscanner.inference.export_outputs import INPUT_NAME, OUTPUT_NAMES

if TYPE_CHECKING:
    import onnx

FILE_NAME = ONNX_NAME
OPSET = (
    17  # 18 makes the axes of a mean an input, which tf2onnx shares between means and then transposes for one of them
)
METADATA_KEY = "textscanner"  # of the metadata inside the file
MIN_FLOAT16_ELEMENTS = 1024  # smaller constants (and shapes) stay float32


def write_onnx(
    exported: ExportedFunction,
    path: pathlib.Path,
    metadata: dict[str, Any],
    fp16_weights: bool,
    calibration: Sequence[np.ndarray] | None,
) -> None:
    """Writes the file `path`.

    Args:
      exported: the traced function.
      path: of the file.
      metadata: stored inside the file too.
      fp16_weights: store float32 weights as float16.
      calibration: images of the network's input size, uint8 [H, W, 3], for 8-bit convolutions; None keeps floats.
    """
    import onnx
    import tf2onnx

    model, _ = tf2onnx.convert.from_function(exported.read, input_signature=exported.read.input_signature, opset=OPSET)
    if calibration is not None:
        model = quantize(model, calibration)
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata, ensure_ascii=False)})
    if fp16_weights:
        _store_as_float16(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _store_as_float16(graph: onnx.GraphProto) -> None:
    """Stores large float32 constants as float16 with a cast behind each. A session computes in float32 as before."""
    import onnx

    casts = []
    for index, tensor in enumerate(graph.initializer):
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < MIN_FLOAT16_ELEMENTS:
            continue
        stored_name = f"{tensor.name}__half"
        casts.append(onnx.helper.make_node("Cast", [stored_name], [tensor.name], to=onnx.TensorProto.FLOAT))
        graph.initializer[index].CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), stored_name))
    nodes = [*casts, *graph.node]  # nodes are sorted topologically, so the casts come first
    del graph.node[:]
    graph.node.extend(nodes)


def open_onnx(path: pathlib.Path) -> RunExported:
    """Opens the file `path`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: dict(zip(OUTPUT_NAMES, session.run(list(OUTPUT_NAMES), {INPUT_NAME: images}), strict=True))
