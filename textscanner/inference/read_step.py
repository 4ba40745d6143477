"""The compiled inference step: images in, decoded words out."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import keras
import tensorflow as tf

from textscanner.config import Config
from textscanner.inference.decode import Decoded, decode
from textscanner.model.assembly import forward

ReadStep = Callable[[tf.Tensor, tf.Tensor], Decoded]
"""uint8 images [B, H, W, 3] and a float32 scalar threshold -> decoded words."""


def make_read_step(model: keras.Model, config: Config) -> ReadStep:
    """Compiles forward pass and decoding for any batch size. Runs on one device: there is no collective in it."""
    shape = (None, config.model.height_px, config.model.width_px, 3)

    def read_step(image: tf.Tensor, threshold: tf.Tensor) -> Decoded:
        outputs = forward(model, image, training=False)
        return decode(outputs, threshold, config.model.map_stride_x, config.model.map_stride_y)

    signature = [tf.TensorSpec(shape, tf.uint8), tf.TensorSpec((), tf.float32)]
    return cast(ReadStep, tf.function(read_step, input_signature=signature, autograph=False))
