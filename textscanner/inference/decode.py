"""Maps -> text: one einsum, traceable, part of the exported model (spec section 7; paper, section 3.5).

H_k = Q * S_k weighs the cells of position k; the class probabilities summed under it read the k-th character. The
word ends at the first position whose strongest cell is below the threshold.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from textscanner.model.assembly import Outputs

DEFAULT_THRESHOLD = 0.3  # the paper's score threshold; checkpoints carry one calibrated on validation words


class Decoded(NamedTuple):
    """Readings of a batch.

    Attributes:
      ids: int32 [B, N], class ids, 0 behind the word.
      confidences: float32 [B, N] in 0..1, 0 behind the word.
      centres: float32 [B, N, 2], x y in pixels of the network's input, of all positions.
      scores: float32 [B, N, C], the share of each class at all positions; background 0.
      presence: float32 [B, N], the strongest cell of each H_k whatever the threshold.
      raw_ids: int32 [B, N], class ids of all positions whatever the threshold.
      word_confidence: float32 [B], the product over the characters read; 0 for an empty reading.
    """

    ids: tf.Tensor
    confidences: tf.Tensor
    centres: tf.Tensor
    scores: tf.Tensor
    presence: tf.Tensor
    raw_ids: tf.Tensor
    word_confidence: tf.Tensor


def decode(outputs: Outputs, threshold: tf.Tensor | float, stride_x: int, stride_y: int) -> Decoded:
    """The readings of a batch of logits; strides in pixels per map cell."""
    return decode_maps(
        tf.nn.softmax(outputs.classes),
        tf.nn.softmax(outputs.order)[..., 1:],
        tf.sigmoid(outputs.localization),
        threshold,
        stride_x,
        stride_y,
    )


def decode_maps(
    classes: tf.Tensor,
    order: tf.Tensor,
    localization: tf.Tensor,
    threshold: tf.Tensor | float,
    stride_x: int,
    stride_y: int,
) -> Decoded:
    """The readings of probability maps G [B, h, w, C], S without background [B, h, w, N], Q [B, h, w].

    Background is left out of the class argmax: cells outside characters were never trained, so it means nothing.
    """
    heat = order * localization[..., None]  # H [B, h, w, N]
    mass = tf.maximum(tf.reduce_sum(heat, (1, 2)), 1e-6)  # [B, N]
    scores = tf.einsum("bhwc,bhwk->bkc", classes, heat)[..., 1:] / mass[..., None]
    scores = tf.pad(scores, [[0, 0], [0, 0], [1, 0]])
    raw_ids = tf.argmax(scores, -1, tf.int32)
    presence = tf.reduce_max(heat, (1, 2))
    alive = tf.cast(tf.cumsum(tf.cast(presence < threshold, tf.int32), 1) == 0, tf.float32)
    confidences = alive * tf.reduce_max(scores, -1)
    xs = (tf.range(tf.shape(heat)[2], dtype=tf.int32)[None, :, None], stride_x)
    ys = (tf.range(tf.shape(heat)[1], dtype=tf.int32)[None, :, None], stride_y)
    centres = tf.stack(
        [
            tf.reduce_sum(tf.reduce_sum(heat, 1) * (tf.cast(xs[0], tf.float32) + 0.5), 1) / mass * xs[1],
            tf.reduce_sum(tf.reduce_sum(heat, 2) * (tf.cast(ys[0], tf.float32) + 0.5), 1) / mass * ys[1],
        ],
        -1,
    )
    empty = alive[:, 0] == 0
    word = tf.where(empty, 0.0, tf.reduce_prod(tf.where(alive > 0, confidences, 1.0), 1))
    return Decoded(tf.cast(alive, tf.int32) * raw_ids, confidences, centres, scores, presence, raw_ids, word)
