"""The three heads on the feature map: classes, localization, order (paper, section 3.2, Fig. 3).

Shapes: B batch, h w map cells, F feature channels, C classes, N positions.
"""

from __future__ import annotations

import keras

from textscanner.config import ModelConfig
from textscanner.model.layers import conv, conv_norm, upsample

CLASS_LOGITS = "class_logits"  # name of the classifier layer, whose channels are the characters


def class_logits(x: keras.KerasTensor, num_classes: int, model: ModelConfig) -> keras.KerasTensor:
    """Class logits Zg [B, h, w, C] of features [B, h, w, F]: conv 3x3, conv 1x1."""
    return conv(conv_norm(x, model.head_channels, model, "class"), num_classes, CLASS_LOGITS, 1, bias=True)


def localization_logit(x: keras.KerasTensor, model: ModelConfig) -> keras.KerasTensor:
    """Logit of the localization map Q [B, h, w, 1] of features [B, h, w, F]."""
    return conv(conv_norm(x, model.head_channels, model, "localization"), 1, "localization_logit", 1, bias=True)


def order_logits(x: keras.KerasTensor, model: ModelConfig) -> keras.KerasTensor:
    """Order logits Zs [B, h, w, N+1] of features [B, h, w, F].

    Three stride-2 levels, a GRU over the columns at the top, and upsampling with two skip connections (Fig. 3).
    """
    levels = []
    y = x
    for i, channels in enumerate(model.order_channels):
        y = conv_norm(y, channels, model, f"order_down{i}", strides=(2, 2))
        levels.append(y)
    y = _context(y, model)
    for i in (1, 0):
        y = upsample(y, (2, 2), f"order_up{i}")
        y = conv_norm(y, model.order_channels[i], model, f"order_up{i}")
        y = keras.layers.Add(name=f"order_skip{i}")([y, levels[i]])
    y = upsample(y, (2, 2), "order_up_out")
    y = conv_norm(y, model.order_channels[0], model, "order_out")
    return conv(y, model.max_label_length + 1, "order_logits", 1, bias=True)


def _context(y: keras.KerasTensor, model: ModelConfig) -> keras.KerasTensor:
    """Adds context along the word: [B, rows, columns, c] -> [B, columns, rows * c] -> GRU -> [B, rows, columns, c]."""
    if model.gru_units == 0:
        return y
    _, rows, columns, channels = y.shape
    flat = keras.layers.Permute((2, 1, 3), name="order_columns")(y)
    flat = keras.layers.Reshape((columns, rows * channels), name="order_flat")(flat)
    gru = keras.layers.GRU(model.gru_units, return_sequences=True, name="order_gru")
    if model.gru_direction == "both":
        gru = keras.layers.Bidirectional(gru, name="order_bigru")
    flat = gru(flat)
    if flat.shape[-1] != rows * channels:
        flat = keras.layers.Dense(rows * channels, name="order_back")(flat)
    back = keras.layers.Reshape((columns, rows, channels), name="order_unflat")(flat)
    back = keras.layers.Permute((2, 1, 3), name="order_rows")(back)
    return keras.layers.Add(name="order_context")([y, back])
