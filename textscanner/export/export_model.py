"""Exports a reader as a self-contained model: uint8 images in; class ids, confidences and positions out.

Decoding is part of the graph. The metadata describes what is left to the caller: fitting the image to the input size
and looking up the characters. `saved_model` runs in TensorFlow, `onnx` in ONNX Runtime, `litert` on phones and boards.
The batch size is dynamic, and all formats compute in float32: their runtimes need not support the bfloat16 of training.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from textscanner.data.images import fit
from textscanner.errors import UserError
from textscanner.export import litert_format, onnx_format, saved_model_format
from textscanner.export.exported_function import ExportedFunction, RunExported
from textscanner.export.metadata import METADATA_NAME, export_metadata
from textscanner.inference.reader import Reader

Format = Literal["saved_model", "onnx", "litert"]
FORMATS: tuple[Format, ...] = get_args(Format)
FILE_NAMES: dict[Format, str] = {
    "saved_model": saved_model_format.FILE_NAME,
    "onnx": onnx_format.FILE_NAME,
    "litert": litert_format.FILE_NAME,
}


def export(
    reader: Reader,
    format: Format,
    out: pathlib.Path,
    fp16_weights: bool = False,
    calibration: Sequence[np.ndarray] | None = None,
) -> pathlib.Path:
    """Writes a model and its metadata (METADATA_NAME).

    Args:
      reader: the trained network.
      format: one of FORMATS.
      out: folder; created if it does not exist.
      fp16_weights: store the weights of an ONNX file as float16; with `calibration`, those that stay floats.
      calibration: word images, uint8 RGB of any size. If given, the convolutions of an ONNX file compute with 8 bits,
        in the value ranges of these words.

    Returns:
      the path of the model.

    Raises:
      UserError: unknown format, an option that the format does not have, no calibration image, or the model exists.
    """
    if format not in FORMATS:
        raise UserError(f"format is {format!r}: must be one of {', '.join(FORMATS)}")
    if format != "onnx" and fp16_weights:
        raise UserError(f"fp16_weights is for format onnx only, not for {format}")
    if format != "onnx" and calibration is not None:
        raise UserError(f"int8 is for format onnx only, not for {format}")
    if calibration is not None and not calibration:
        raise UserError("calibration is empty: give a data set or a folder with word images")
    path = out / FILE_NAMES[format]
    if path.exists():
        raise UserError(f"out is {out}: {path.name} already exists there; delete it or give another folder")
    out.mkdir(parents=True, exist_ok=True)
    exported = ExportedFunction(reader.in_float32())
    weights = "int8" if calibration is not None else "float16" if fp16_weights else "float32"
    metadata = export_metadata(reader, weights)
    if format == "saved_model":
        saved_model_format.write_saved_model(exported, path)
    elif format == "litert":
        litert_format.write_litert(exported, path)
    else:
        fitted = None if calibration is None else [fit(image, reader.config.model)[0] for image in calibration]
        onnx_format.write_onnx(exported, path, metadata, fp16_weights=fp16_weights, calibration=fitted)
    (out / METADATA_NAME).write_text(json.dumps(metadata, indent=2, ensure_ascii=False))
    return path


def open_exported(path: pathlib.Path) -> RunExported:
    """Opens an exported model with the runtime of its format.

    Raises:
      UserError: the path has none of the formats.
    """
    if path.suffix == pathlib.Path(onnx_format.FILE_NAME).suffix:
        return onnx_format.open_onnx(path)
    if path.suffix == pathlib.Path(litert_format.FILE_NAME).suffix:
        return litert_format.open_litert(path)
    if path.is_dir():
        return saved_model_format.open_saved_model(path)
    raise UserError(f"{path} is not an exported model: give an .onnx file, a .tflite file or a SavedModel folder")
