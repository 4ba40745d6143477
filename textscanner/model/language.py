"""Language module: class logits from a word's context, added to those that the decoder pools from the class map. Ours.

The decoder classifies each position from its own cells. Which letter follows `TH` is knowledge about words, not about
cells: this module pools features and class probabilities under each H_k, and a small transformer over the positions
turns them into corrections. Its output layer starts at zero, so a network to which it is added reads as before. The
word loss (`training/word_loss.py`) trains it, with or without character boxes.

Shapes: B batch, h w map cells, F feature channels, C classes, N positions, L `model.language_channels`.
"""

from __future__ import annotations

import keras
from keras import ops

from textscanner.config import ModelConfig
from textscanner.model.layers import PositionEmbedding, transformer_blocks
from textscanner.model.positions import heat_mass, pool, position_heat

PRESENCE_FLOOR = 1e-4  # mixed into a position's presence before the logarithm
# Names of the layers that classes number: the last inputs of the first one, and the outputs of the last one.
LANGUAGE_EMBEDDING, LANGUAGE_LOGITS = "language_embedding", "language_logits"


def language_logits(
    x: keras.KerasTensor,
    classes: keras.KerasTensor,
    order: keras.KerasTensor,
    localization: keras.KerasTensor,
    model: ModelConfig,
) -> keras.KerasTensor:
    """Corrections [B, N, C] to the class logits of each position.

    No gradient flows into the maps: their own losses shape them. The features receive one, which teaches the backbone
    what tells similar letters apart.

    Args:
      x: features [B, h, w, F].
      classes: class logits Zg [B, h, w, C], float32.
      order: order logits Zs [B, h, w, N + 1], float32.
      localization: logit of Q [B, h, w], float32.
      model: number and width of the blocks.
    """
    heat = ops.stop_gradient(position_heat(ops.softmax(order)[..., 1:], ops.sigmoid(localization)))
    mass = heat_mass(heat)
    features = pool(ops.cast(x, "float32"), heat, mass)
    scores = pool(ops.stop_gradient(ops.softmax(classes)), heat, mass)
    tokens = keras.layers.Concatenate(name="language_tokens")([features, scores])
    tokens = keras.layers.Dense(model.language_channels, name=LANGUAGE_EMBEDDING)(tokens)
    tokens = PositionEmbedding(name="language_positions")(tokens)
    # Attention ignores positions that the image does not have.
    key_bias = ops.log(ops.max(heat, (1, 2)) + PRESENCE_FLOOR)  # [B, N]
    tokens = transformer_blocks(tokens, model.language_blocks, "language", key_bias)
    tokens = keras.layers.LayerNormalization(epsilon=1e-5, name="language_norm")(tokens)
    return keras.layers.Dense(classes.shape[-1], kernel_initializer="zeros", name=LANGUAGE_LOGITS)(tokens)
