"""Loss of the decoded word: class and presence of each position, without character boxes. Ours, not the paper's.

Mutual supervision (`mutual_supervision.py`) corrects one map with the other, but none of its terms sustains the
localization map: a character whose cells fade is lost, and with it the rest of the word. This loss runs the decoder
(`inference/decode.py`) and compares its result with the label: the class at position k, that positions 1..n are
present, and that no further one is.

Shapes: B batch, h w map cells, C classes, N positions.
"""

from __future__ import annotations

import tensorflow as tf

from textscanner.charset import FIRST_CHARACTER_ID
from textscanner.inference.decode import pool_positions, probabilities
from textscanner.model.assembly import Outputs

FLOOR = 1e-4  # mixed into probabilities before the logarithm: bounds the gradient of a position that is missing


def word_losses(outputs: Outputs, ids: tf.Tensor, length: tf.Tensor, other_ids: tf.Tensor | None = None) -> tf.Tensor:
    """Cross entropy of the decoded classes plus that of each position's presence.

    Args:
      outputs: the network's logits.
      ids: int32 [B, N], class ids, 0 after the end of the word.
      length: int32 [B], characters per word.
      other_ids: int32 [B, N], a second class id that is correct too (a letter in the other case); the same id where
        there is none. None: one id everywhere.

    Returns:
      float32 [B]; 0 for an empty word.
    """
    pooled = pool_positions(probabilities(outputs))
    label_scores = tf.gather(pooled.scores, ids, axis=2, batch_dims=2)  # probability of the label [B, N]
    if other_ids is not None:
        other_scores = tf.gather(pooled.scores, other_ids, axis=2, batch_dims=2)
        label_scores += tf.where(other_ids == ids, 0.0, other_scores)
    inside = tf.sequence_mask(length, ids.shape[1])  # [B, N]
    # Characters outside the charset have no class to learn, but they have a position.
    class_loss = _masked_mean(-_floored_log(label_scores), inside & (ids >= FIRST_CHARACTER_ID))
    present = _masked_mean(-_floored_log(pooled.presence), inside)
    absent = _masked_mean(-_floored_log(1.0 - pooled.presence), ~inside)
    return tf.cast(length > 0, tf.float32) * (class_loss + 0.5 * present + 0.5 * absent)


def _floored_log(probability: tf.Tensor) -> tf.Tensor:
    """log of probabilities [B, N], at least log FLOOR."""
    return tf.math.log(FLOOR + (1.0 - FLOOR) * probability)


def _masked_mean(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Mean of values [B, N] where mask [B, N] is set, per sample [B]; 0 where the mask is empty."""
    weight = tf.cast(mask, tf.float32)
    return tf.reduce_sum(values * weight, -1) / tf.maximum(tf.reduce_sum(weight, -1), 1.0)
