"""SavedModel: runs in TensorFlow, without Keras and without this package."""

from __future__ import annotations

import pathlib

import tensorflow as tf

from textscanner.export.exported_function import SIGNATURE_NAME, ExportedFunction, RunExported
from textscanner.inference.export_outputs import INPUT_NAME

FILE_NAME = "saved_model"  # a folder


def write_saved_model(exported: ExportedFunction, path: pathlib.Path) -> None:
    """Writes the folder `path`."""
    tf.saved_model.save(exported, str(path), signatures={SIGNATURE_NAME: exported.read})


def open_saved_model(path: pathlib.Path) -> RunExported:
    """Opens the folder `path`."""
    signature = tf.saved_model.load(str(path)).signatures[SIGNATURE_NAME]
    return lambda images: {
        name: tensor.numpy() for name, tensor in signature(**{INPUT_NAME: tf.constant(images)}).items()
    }
