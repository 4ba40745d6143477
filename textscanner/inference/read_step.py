"""The compiled inference step: images in, decoded words out."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from textscanner.config import Config
from textscanner.inference.decode import Decoded, decode
from textscanner.model.assembly import forward


def make_read_step(model: keras.Model, config: Config) -> Callable[[tf.Tensor, tf.Tensor], Decoded]:
    """The compiled inference: uint8 images [B, H, W, 3] and a threshold in, readings out. No collective inside."""
    shape = (None, config.model.height_px, config.model.width_px, 3)

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8), tf.TensorSpec((), tf.float32)], autograph=False)
    def read_step(image: tf.Tensor, threshold: tf.Tensor) -> Decoded:
        outputs = forward(model, image, training=False)
        return decode(outputs, threshold, config.model.map_stride_x, config.model.map_stride_y)

    return read_step
