"""The whole network: uint8 images -> three maps of logits (and those of the language module), in float32 for any
compute dtype.

Shapes: B batch, H W input pixels, h w map cells, F feature channels, C classes, N positions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Iterator
from typing import NamedTuple

import keras
import tensorflow as tf

from textscanner.config import Config
from textscanner.model.backbone import features
from textscanner.model.heads import class_logits, localization_logit, order_logits
from textscanner.model.language import language_logits

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


class Outputs(NamedTuple):
    """The network's logits, float32.

    Attributes:
      classes: Zg [B, h, w, C].
      order: Zs [B, h, w, N+1], channel 0 background.
      localization: [B, h, w]; Q is its sigmoid.
      language: [B, N, C], added to the class logits of each position; None without a language module.
    """

    classes: tf.Tensor
    order: tf.Tensor
    localization: tf.Tensor
    language: tf.Tensor | None = None


def build_model(config: Config, seed: int = 0) -> keras.Model:
    """Builds the Keras model: uint8 RGB [B, H, W, 3] -> a dict with the fields of Outputs.

    Args:
      config: architecture, charset and compute precision.
      seed: determines the initial weights.

    Raises:
      UserError: the ImageNet weights of `model.pretrained_backbone` cannot be loaded.
    """
    previous_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_POLICIES[config.optimizer.precision])
    try:
        with _initializer_seeds(seed):
            return _assemble(config)
    finally:
        keras.config.set_dtype_policy(previous_policy)


@contextlib.contextmanager
def _initializer_seeds(seed: int) -> Iterator[None]:
    """Makes the seeds of all layers that are built inside follow from `seed`; the caller's generators stay as they are.

    A Keras initializer without a seed draws one from Python's global generator when it is made, and is a pure function
    of it from then on. So `keras.utils.set_random_seed`, which also reseeds NumPy and TensorFlow, is not needed.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def build_without_pretrained(config: Config) -> keras.Model:
    """Builds the model for weights that are loaded afterwards: ImageNet weights are not loaded first."""
    return build_model(dataclasses.replace(config, model=dataclasses.replace(config.model, pretrained_backbone="none")))


def _assemble(config: Config) -> keras.Model:
    model = config.model
    image = keras.Input((model.height_px, model.width_px, 3), dtype="uint8", name="image")
    x = features(image, model)
    outputs = {
        "classes": _in_float32(class_logits(x, config.charset.num_classes, model), "classes"),
        "order": _in_float32(order_logits(x, model), "order"),
        "localization": _in_float32(
            keras.layers.Reshape((model.map_height, model.map_width), name="localization_map")(
                localization_logit(x, model)
            ),
            "localization",
        ),
    }
    if model.language_blocks:
        outputs["language"] = _in_float32(language_logits(x, **outputs, model=model), "language")
    return keras.Model(image, outputs, name=f"textscanner_{config.preset}")


def _in_float32(logits: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Softmax and sigmoid of bfloat16 logits would lose accuracy: everything after the heads computes in float32."""
    return keras.layers.Activation("linear", dtype="float32", name=f"{name}_float32")(logits)


def forward(model: keras.Model, image: tf.Tensor, training: bool) -> Outputs:
    """Runs the network.

    Args:
      model: from `build_model`.
      image: uint8 RGB [B, H, W, 3].
      training: whether norms use and update batch statistics. No default, so that evaluation cannot forget it.
    """
    return Outputs(**model(image, training=training))
