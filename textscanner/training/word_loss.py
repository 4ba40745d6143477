"""The loss of the decoded word: class and presence of each position, without character boxes. Ours, not the paper's.

MutualLosses supervision (`mutual.py`) corrects one map by the other but nothing in it holds the localization map: a
character whose cells fade is lost, and with it the rest of the word. Here the decoder itself (one einsum, `decode.py`)
is compared with the label: the class read at position k, that positions 1..n are there, and that none follows.

Letters: B batch, h w map, N positions, C classes.
"""

from __future__ import annotations

import tensorflow as tf

from textscanner.charset import FIRST_CHARACTER_ID
from textscanner.model.assembly import Outputs

FLOOR = 1e-4  # of probabilities under a logarithm: bounds the gradient of a position that is not seen at all


def word_losses(outputs: Outputs, ids: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """float32 [B]: cross entropy of the decoded classes plus that of each position's presence; 0 for an empty word.

    Args:
      outputs: the network's logits.
      ids: int32 [B, N], class ids, 0 behind the word.
      length: int32 [B].
    """
    positions = ids.shape[1]
    heat = tf.nn.softmax(outputs.order)[..., 1:] * tf.sigmoid(outputs.localization)[..., None]  # H [B, h, w, N]
    mass = tf.maximum(tf.reduce_sum(heat, (1, 2)), 1e-6)
    scores = tf.einsum("bhwc,bhwk->bkc", tf.nn.softmax(outputs.classes), heat) / mass[..., None]
    read = tf.gather(scores, ids, axis=2, batch_dims=2)  # the label's share at each position [B, N]
    inside = tf.sequence_mask(length, positions)
    classes = _mean(-_log(read), inside & (ids >= FIRST_CHARACTER_ID))
    strength = tf.reduce_max(heat, (1, 2))
    presence = 0.5 * _mean(-_log(strength), inside) + 0.5 * _mean(-_log(1.0 - strength), ~inside)
    return tf.cast(length > 0, tf.float32) * (classes + presence)


def _log(probability: tf.Tensor) -> tf.Tensor:
    return tf.math.log(FLOOR + (1.0 - FLOOR) * probability)


def _mean(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """The mean over the mask's positions [B]; 0 where it is empty."""
    weight = tf.cast(mask, tf.float32)
    return tf.reduce_sum(values * weight, -1) / tf.maximum(tf.reduce_sum(weight, -1), 1.0)
