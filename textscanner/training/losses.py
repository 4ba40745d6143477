"""Supervised losses: one scalar per sample (the terms of L in the paper; reductions: docs/model.md).

Each term is normalized within its sample, so the loss depends neither on how a batch is split over replicas, nor on the
length of a word, nor on the resolution of the maps. Logits are float32; targets are integers, never one-hot.

Shapes: B batch, h w map cells, C classes, N positions.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from textscanner.config import LossConfig
from textscanner.model.assembly import Outputs
from textscanner.training.targets import IGNORE, Targets

FOREGROUND = 0.05  # cells with a larger Q* are foreground of the localization loss


class Losses(NamedTuple):
    """Per-sample losses, float32 [B].

    Attributes:
      total: the weighted sum.
      classes, order, localization: the terms, unweighted.
    """

    total: tf.Tensor
    classes: tf.Tensor
    order: tf.Tensor
    localization: tf.Tensor


def supervised_losses(
    outputs: Outputs,
    targets: Targets,
    has_quads: tf.Tensor,
    config: LossConfig,
    other_classes: tf.Tensor | None = None,
) -> Losses:
    """Losses against maps drawn from character boxes.

    Args:
      outputs: the network's logits.
      targets: maps of the same size.
      has_quads: float32 [B], 0 for rows without character boxes, whose losses are 0; else 1.
      config: weights, and the form of the localization loss.
      other_classes: int32 [B, h, w], a second class id that is correct too (a letter in the other case); the same id
        where there is none. None: one id everywhere.
    """
    classes = has_quads * _class_loss(outputs.classes, targets.classes, other_classes)
    order = has_quads * _order_loss(outputs.order, targets.order)
    if config.localization == "smooth_l1":
        localization = has_quads * _balanced_smooth_l1(outputs.localization, targets.localization)
    else:
        localization = has_quads * _squared_over_mass(outputs.localization, targets.localization)
    total = config.class_weight * classes + config.order_weight * order + config.localization_weight * localization
    return Losses(total, classes, order, localization)


def _class_loss(logits: tf.Tensor, classes: tf.Tensor, other_classes: tf.Tensor | None) -> tf.Tensor:
    """L_s [B]: mean cross entropy over the cells that carry a class. Logits [B, h, w, C], class ids [B, h, w]."""
    entropy = _cross_entropy(logits, tf.maximum(classes, 0))
    if other_classes is not None:
        # -log(p + p') = -log p - log(1 + p' / p), and p' / p follows from the two cross entropies.
        other_entropy = _cross_entropy(logits, tf.maximum(other_classes, 0))
        entropy -= tf.where(other_classes == classes, 0.0, tf.nn.softplus(entropy - other_entropy))
    return _masked_mean(entropy, classes != IGNORE)


def _order_loss(logits: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    """L_o [B]: cross entropy, averaged over characters and over background, half each.

    Logits [B, h, w, N+1], positions [B, h, w].
    """
    entropy = _cross_entropy(logits, order)
    return 0.5 * _masked_mean(entropy, order > 0) + 0.5 * _masked_mean(entropy, order == 0)


def _balanced_smooth_l1(logit: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """L_l [B]: smooth L1 of Q [B, h, w] against Q*, averaged over foreground and over background, half each.

    A plain mean over all cells lets Q collapse to 0, because most cells are background.
    """
    error = tf.abs(tf.sigmoid(logit) - target)
    loss = tf.where(error < 1, 0.5 * tf.square(error), error - 0.5)
    foreground = target > FOREGROUND
    return 0.5 * _masked_mean(loss, foreground) + 0.5 * _masked_mean(loss, ~foreground)


def _squared_over_mass(logit: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """L_l [B]: sum (Q - Q*)^2 / sum Q* over the map [B, h, w]."""
    error = tf.square(tf.sigmoid(logit) - target)
    return tf.reduce_sum(error, (1, 2)) / tf.maximum(tf.reduce_sum(target, (1, 2)), 1.0)


def _cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Per cell [B, h, w], from logits [B, h, w, K] and int32 labels [B, h, w]."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def _masked_mean(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Mean of values [B, h, w] over the cells of a mask [B, h, w], per sample [B]; 0 where the mask is empty."""
    weight = tf.cast(mask, tf.float32)
    return tf.reduce_sum(values * weight, (1, 2)) / tf.maximum(tf.reduce_sum(weight, (1, 2)), 1.0)
