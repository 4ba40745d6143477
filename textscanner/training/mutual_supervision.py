"""Mutual supervision: learning from words without character boxes (paper, section 3.4; docs/model.md).

Where the localization map shows a character, the order map gives its position, and with the label the class that its
cells must have (L_g); the class map gives its letter, and so the position that its cells must have, if the word has
that letter once (L_h). Each map supervises the other in proportion to its own reliability phi, the fraction of the
word's characters that it detects. A random network cannot start this way: `losses.word_supervision_start_step` and
`losses.word_supervision_ramp_steps` delay it until the maps carry information.

Shapes: B batch, h w map cells, C classes, N positions.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from textscanner.charset import FIRST_CHARACTER_ID
from textscanner.model.assembly import Outputs

FOREGROUND = 0.2  # epsilon: cells with a larger localization count
GAMMA = 2.0  # exponent of the reliability factors
CLASS_SHARE = 0.2  # lambda: weight of L_g relative to L_h


class MutualLosses(NamedTuple):
    """Per sample, float32 [B].

    Attributes:
      loss: L_m = phi_g^GAMMA * L_h + CLASS_SHARE * phi_h^GAMMA * L_g.
      phi_classes: phi_g, the fraction of characters that the class map detects, 0..1.
      phi_order: phi_h, the fraction of characters that the order map detects, 0..1.
    """

    loss: tf.Tensor
    phi_classes: tf.Tensor
    phi_order: tf.Tensor


def mutual_losses(
    outputs: Outputs, ids: tf.Tensor, length: tf.Tensor, other_ids: tf.Tensor | None = None
) -> MutualLosses:
    """L_m of a batch; 0, with zero gradients, where the maps detect nothing.

    Args:
      outputs: the network's logits.
      ids: int32 [B, N], class ids, 0 after the end of the word.
      length: int32 [B], characters per word.
      other_ids: int32 [B, N], a second class id that is correct too; the same id where there is none. Letters with two
        ids are left out: the maps could not correct each other's case.
    """
    positions = ids.shape[1]
    known = tf.sequence_mask(length, positions) & (ids >= FIRST_CHARACTER_ID)  # v_k [B, N]
    if other_ids is not None:
        known &= other_ids == ids
    same = tf.cast(ids[:, :, None] == ids[:, None, :], tf.float32) * tf.cast(known, tf.float32)[:, None, :]
    unique = known & (tf.reduce_sum(same, -1) < 1.5)  # u_k [B, N]: the letter occurs once in the word
    foreground = (tf.sigmoid(outputs.localization) > FOREGROUND)[..., None]  # [B, h, w, 1]
    order_cells = tf.argmax(outputs.order, -1, tf.int32)[..., None] == tf.range(1, positions + 1)  # [B, h, w, N]
    class_cells = tf.argmax(outputs.classes, -1, tf.int32)[..., None] == ids[:, None, None, :]  # [B, h, w, N]
    psi_order = tf.cast(order_cells & foreground & known[:, None, None, :], tf.float32)  # psi_h [B, h, w, N]
    psi_classes = tf.cast(class_cells & foreground & unique[:, None, None, :], tf.float32)  # psi_g [B, h, w, N]

    labels = tf.one_hot(ids, outputs.classes.shape[-1])  # [B, N, C]
    class_entropy = -tf.einsum("bhwc,bkc->bhwk", tf.nn.log_softmax(outputs.classes), labels)
    order_entropy = -tf.nn.log_softmax(outputs.order)[..., 1:]
    # The masks come from argmax and comparisons, so no gradient flows through them.
    class_loss, phi_order = _mean_over_characters(class_entropy, psi_order, known)  # sum_k L_g^k / n, phi_h
    order_loss, phi_classes = _mean_over_characters(order_entropy, psi_classes, known)  # sum_k L_h^k / n, phi_g
    loss = phi_classes**GAMMA * order_loss + CLASS_SHARE * phi_order**GAMMA * class_loss
    return MutualLosses(loss, phi_classes, phi_order)


def _mean_over_characters(entropy: tf.Tensor, cells: tf.Tensor, known: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Averages over each character's cells, then over a word's characters.

    Args:
      entropy: float32 [B, h, w, N].
      cells: float32 [B, h, w, N], 1 for the cells of each character.
      known: bool [B, N], characters of the word that are in the charset.

    Returns:
      the mean entropy [B], and the fraction of characters that have any cell [B], without gradient.
    """
    size = tf.reduce_sum(cells, (1, 2))  # [B, N]
    per_character = tf.reduce_sum(entropy * cells, (1, 2)) / tf.maximum(size, 1.0)  # [B, N]
    count = tf.maximum(tf.reduce_sum(tf.cast(known, tf.float32), -1), 1.0)
    detected = tf.reduce_sum(tf.cast(size > 0, tf.float32), -1) / count
    return tf.reduce_sum(per_character, -1) / count, tf.stop_gradient(detected)
