"""The whole network: uint8 image -> the three logits, in float32 whatever the compute dtype."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import keras
import tensorflow as tf

from textscanner.config import Config
from textscanner.model.backbone import features
from textscanner.model.heads import class_logits, localization_logit, order_logits

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


class Outputs(NamedTuple):
    """The network's logits, float32.

    Attributes:
      classes: Zg [B, h, w, C].
      order: Zs [B, h, w, N+1], channel 0 background.
      localization: [B, h, w]; Q is its sigmoid.
    """

    classes: tf.Tensor
    order: tf.Tensor
    localization: tf.Tensor


def build_model(config: Config, seed: int = 0) -> keras.Model:
    """The Keras model: uint8 RGB [B, H, W, 3] -> Outputs as a dict of its fields. Same seed, same initial weights."""
    keras.utils.set_random_seed(seed)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_POLICIES[config.optimizer.precision])
    try:
        return _assemble(config)
    finally:
        keras.config.set_dtype_policy(before)


def build_without_pretrained(config: Config) -> keras.Model:
    """The model for weights that are at hand: ImageNet's are not fetched first."""
    return build_model(dataclasses.replace(config, model=dataclasses.replace(config.model, pretrained_backbone="none")))


def _assemble(config: Config) -> keras.Model:
    model = config.model
    image = keras.Input((model.height_px, model.width_px, 3), dtype="uint8", name="image")
    x = features(image, model)
    outputs = {
        "classes": class_logits(x, config.charset.num_classes, model),
        "order": order_logits(x, model),
        "localization": keras.layers.Reshape((model.map_height, model.map_width), name="localization_map")(
            localization_logit(x, model)
        ),
    }
    wide = {
        name: keras.layers.Activation("linear", dtype="float32", name=f"{name}_float32")(value)
        for name, value in outputs.items()
    }
    return keras.Model(image, wide, name=f"textscanner_{config.preset}")


def forward(model: keras.Model, image: tf.Tensor, training: bool) -> Outputs:
    """The network on uint8 images [B, H, W, 3]. `training` has no default: evaluation must say so."""
    return Outputs(**model(image, training=training))
