"""Decoding: probability maps -> text (paper, section 3.5; docs/model.md). Traceable, and part of every exported model.

Class probabilities averaged under H_k (`model/positions.py`) classify the k-th character; the language module, if the
network has one, adds logits to them. The word ends at the first position whose peak of H_k is below the threshold.

Shapes: B batch, h w map cells, C classes, N positions.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from textscanner.model.assembly import Outputs
from textscanner.model.positions import heat_mass, pool, position_heat

DEFAULT_THRESHOLD = 0.3  # the paper's score threshold; a checkpoint carries one calibrated on validation words
SCORE_FLOOR = 1e-6  # lower bound of a pooled class probability before the logarithm


class Probabilities(NamedTuple):
    """The network's maps as probabilities.

    Attributes:
      classes: G float32 [B, h, w, C], a softmax over classes.
      order: S float32 [B, h, w, N], a softmax over positions and background; the background channel is dropped.
      localization: Q float32 [B, h, w] in 0..1.
      language: logits of the language module float32 [B, N, C]; None without one.
    """

    classes: tf.Tensor
    order: tf.Tensor
    localization: tf.Tensor
    language: tf.Tensor | None = None


class PooledPositions(NamedTuple):
    """The maps reduced to one row per position.

    Attributes:
      heat: H float32 [B, h, w, N].
      mass: float32 [B, N], the sum of H_k over the map, greater than 0.
      scores: float32 [B, N, C], probabilities of the classes at each position. Background (class 0) is included
        without a language module, and 0 with one.
      presence: float32 [B, N] in 0..1, the peak of H_k.
    """

    heat: tf.Tensor
    mass: tf.Tensor
    scores: tf.Tensor
    presence: tf.Tensor


class Decoded(NamedTuple):
    """Decoded words of a batch.

    Attributes:
      ids: int32 [B, N], class ids; 0 after the end of the word.
      confidences: float32 [B, N] in 0..1; 0 after the end of the word.
      centres: float32 [B, N, 2], x y in pixels of the network's input, for every position.
      scores: float32 [B, N, C], the share of each class, for every position; background is 0.
      presence: float32 [B, N] in 0..1, the peak of each H_k, independent of the threshold.
      raw_ids: int32 [B, N], class ids for every position, independent of the threshold.
      word_confidence: float32 [B] in 0..1, the product of the confidences; 0 for an empty word.
    """

    ids: tf.Tensor
    confidences: tf.Tensor
    centres: tf.Tensor
    scores: tf.Tensor
    presence: tf.Tensor
    raw_ids: tf.Tensor
    word_confidence: tf.Tensor


def probabilities(outputs: Outputs) -> Probabilities:
    """Softmax and sigmoid of the network's maps."""
    return Probabilities(
        tf.nn.softmax(outputs.classes),
        tf.nn.softmax(outputs.order)[..., 1:],
        tf.sigmoid(outputs.localization),
        outputs.language,
    )


def pool_positions(maps: Probabilities) -> PooledPositions:
    """Reduces the maps to one row per position: class probabilities averaged under H_k, with the language's logits."""
    heat = position_heat(maps.order, maps.localization)
    mass = heat_mass(heat)
    scores = pool(maps.classes, heat, mass)
    if maps.language is not None:
        # Background is no character: leaving it out keeps the language module from having to learn that.
        logits = tf.math.log(scores[..., 1:] + SCORE_FLOOR) + maps.language[..., 1:]
        scores = tf.pad(tf.nn.softmax(logits), [[0, 0], [0, 0], [1, 0]])
    return PooledPositions(heat, mass, scores, tf.reduce_max(heat, (1, 2)))


def decode(outputs: Outputs, threshold: tf.Tensor | float, stride_x: int, stride_y: int) -> Decoded:
    """Decodes the network's logits; see `decode_maps`."""
    return decode_maps(probabilities(outputs), threshold, stride_x, stride_y)


def decode_maps(maps: Probabilities, threshold: tf.Tensor | float, stride_x: int, stride_y: int) -> Decoded:
    """Decodes probability maps.

    Args:
      maps: the probabilities of a batch.
      threshold: float32 scalar in 0..1; the word ends at the first position whose presence is below it.
      stride_x, stride_y: input pixels per map cell.
    """
    pooled = pool_positions(maps)
    # Background is left out of the argmax: cells outside characters carry no class label in training, so its
    # probability is meaningless there.
    scores = tf.pad(pooled.scores[..., 1:], [[0, 0], [0, 0], [1, 0]])
    raw_ids = tf.argmax(scores, -1, tf.int32)
    alive = tf.cast(tf.cumsum(tf.cast(pooled.presence < threshold, tf.int32), 1) == 0, tf.float32)  # [B, N]
    confidences = alive * tf.reduce_max(scores, -1)
    centre_x = _mean_coordinate(tf.reduce_sum(pooled.heat, 1), pooled.mass) * stride_x
    centre_y = _mean_coordinate(tf.reduce_sum(pooled.heat, 2), pooled.mass) * stride_y
    word_confidence = tf.where(alive[:, 0] == 0, 0.0, tf.reduce_prod(tf.where(alive > 0, confidences, 1.0), 1))
    return Decoded(
        ids=tf.cast(alive, tf.int32) * raw_ids,
        confidences=confidences,
        centres=tf.stack([centre_x, centre_y], -1),
        scores=scores,
        presence=pooled.presence,
        raw_ids=raw_ids,
        word_confidence=word_confidence,
    )


def _mean_coordinate(profile: tf.Tensor, mass: tf.Tensor) -> tf.Tensor:
    """Mean cell coordinate [B, N] of heat summed along the other axis [B, cells, N]; cell centres lie at + 0.5."""
    cells = tf.cast(tf.range(tf.shape(profile)[1], dtype=tf.int32)[None, :, None], tf.float32) + 0.5
    return tf.reduce_sum(profile * cells, 1) / mass
