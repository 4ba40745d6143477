"""LiteRT (TensorFlow Lite): runs on phones and boards."""

from __future__ import annotations

import pathlib
import tempfile
import warnings

import numpy as np
import tensorflow as tf

from textscanner.export.exported_function import SIGNATURE_NAME, ExportedFunction, RunExported
from textscanner.inference.export_outputs import INPUT_NAME, OUTPUT_NAMES

FILE_NAME = "model.tflite"


def write_litert(exported: ExportedFunction, path: pathlib.Path) -> None:
    """Writes the file `path`."""
    # Not a public API: the converter leaves the weights of Keras 3 as variables, without their values. Freezing turns
    # them into constants first.
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(exported.read.get_concrete_function())
    module = tf.Module()
    module.read = tf.function(
        # A frozen function returns a flat list, which TensorFlow orders by output name.
        lambda image: dict(zip(sorted(OUTPUT_NAMES), frozen(image), strict=True)),
        input_signature=exported.read.input_signature,
    )
    with tempfile.TemporaryDirectory() as folder:  # only a SavedModel carries the output names into the file
        tf.saved_model.save(module, folder, signatures={SIGNATURE_NAME: module.read})
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())


def open_litert(path: pathlib.Path) -> RunExported:
    """Opens the file `path`."""
    with warnings.catch_warnings():  # a deprecation: the interpreter moves to its own package
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(str(path))
    runner = interpreter.get_signature_runner()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(runner(**{INPUT_NAME: images}))

    return run
