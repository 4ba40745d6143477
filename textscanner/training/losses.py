"""The loss: one scalar per sample, so that any split of a batch gives the same sum (spec section 5).

Each term is normalised inside its own sample: the loss depends neither on how a batch is split over replicas, nor on a
word's length, nor on the resolution of the maps. Logits are float32; targets are integers, never one-hot.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from textscanner.config import LossConfig
from textscanner.model.assembly import Outputs
from textscanner.training.targets import IGNORE, Targets

FOREGROUND = 0.05  # Q* above it counts as foreground of the localization loss


class Losses(NamedTuple):
    """Per-sample losses, float32 [B], unweighted but for `total`."""

    total: tf.Tensor
    classes: tf.Tensor
    order: tf.Tensor
    localization: tf.Tensor


def supervised_losses(outputs: Outputs, targets: Targets, has_quads: tf.Tensor, config: LossConfig) -> Losses:
    """The losses of a batch against maps drawn from boxes.

    Args:
      outputs: the network's logits.
      targets: maps of the same size.
      has_quads: float32 [B], 0 where the row carries no character boxes: its terms are 0.
      config: weights.
    """
    classes = has_quads * _class_loss(outputs.classes, targets.classes)
    order = has_quads * _order_loss(outputs.order, targets.order)
    if config.localization == "smooth_l1":
        localization = has_quads * _balanced_smooth_l1(outputs.localization, targets.localization)
    else:
        localization = has_quads * _squared_over_mass(outputs.localization, targets.localization)
    total = config.class_weight * classes + config.order_weight * order + config.localization_weight * localization
    return Losses(total, classes, order, localization)


def _class_loss(logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Cross entropy over the cells that carry a class, divided by their number."""
    return _mean_where(_cross_entropy(logits, tf.maximum(classes, 0)), classes != IGNORE)


def _order_loss(logits: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    """Cross entropy, half the mean over characters and half the mean over background."""
    entropy = _cross_entropy(logits, order)
    return 0.5 * _mean_where(entropy, order > 0) + 0.5 * _mean_where(entropy, order == 0)


def _balanced_smooth_l1(logit: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Smooth L1, half the mean over foreground, half over the rest: a plain mean lets Q collapse to 0."""
    error = tf.abs(tf.sigmoid(logit) - target)
    loss = tf.where(error < 1, 0.5 * tf.square(error), error - 0.5)
    foreground = target > FOREGROUND
    return 0.5 * _mean_where(loss, foreground) + 0.5 * _mean_where(loss, ~foreground)


def _squared_over_mass(logit: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """sum (Q - Q*)^2 / sum Q*."""
    error = tf.square(tf.sigmoid(logit) - target)
    return tf.reduce_sum(error, (1, 2)) / tf.maximum(tf.reduce_sum(target, (1, 2)), 1.0)


def _cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def _mean_where(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """The mean of values [B, h, w] over the mask's cells, per sample [B]; 0 where the mask is empty."""
    weight = tf.cast(mask, tf.float32)
    return tf.reduce_sum(values * weight, (1, 2)) / tf.maximum(tf.reduce_sum(weight, (1, 2)), 1.0)
