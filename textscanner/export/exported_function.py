"""The function that every format stores: uint8 images in, decoded words out, with decoding inside the graph.

Shapes: B batch (dynamic), H W input pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from textscanner.inference.decode import decode
from textscanner.inference.export_outputs import EXPORT_OUTPUTS, INPUT_NAME
from textscanner.inference.reader import Reader
from textscanner.model.assembly import forward

SIGNATURE_NAME = "serving_default"  # of a SavedModel: the name that TensorFlow Serving and saved_model_cli expect

RunExported = Callable[[np.ndarray], dict[str, np.ndarray]]
"""An opened model: uint8 images [B, H, W, 3] -> arrays by output name."""


class ExportedFunction(tf.Module):
    """The traced function of a reader.

    Attributes:
      model: the network; an attribute, so that `tf.Module` tracks its variables.
      read: the function, traced for uint8 images [B, H, W, 3]; returns tensors by output name.
    """

    def __init__(self, reader: Reader) -> None:
        super().__init__("textscanner")
        self.model = _unroll_recurrent_layers(reader.model)
        model = reader.config.model
        shape = (None, model.height_px, model.width_px, 3)

        def read(image: tf.Tensor) -> dict[str, tf.Tensor]:
            outputs = forward(self.model, image, training=False)
            decoded = decode(outputs, reader.threshold, model.map_stride_x, model.map_stride_y)
            return {output.name: getattr(decoded, output.field) for output in EXPORT_OUTPUTS}

        self.read = tf.function(read, input_signature=[tf.TensorSpec(shape, tf.uint8, name=INPUT_NAME)])


def _unroll_recurrent_layers(model: keras.Model) -> keras.Model:
    """A copy of the model with its GRU unrolled: converters turn a loop into something slow, or refuse it."""

    def unroll(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        # A bidirectional layer holds the configs of two recurrent layers.
        for inner in (config, *(config[k]["config"] for k in ("layer", "backward_layer") if config.get(k))):
            if "unroll" in inner:
                inner["unroll"] = True
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=unroll)
    copy.set_weights(model.get_weights())
    return copy
