"""MutualLosses supervision: learning from words without character boxes (paper, section 3.4; spec section 6).

Where the localization map sees a character, the order map says which one it is and so which class its cells must have
(L_g); the class map says which letter it is and so which position its cells must have, if the word has that letter once
(L_h). Each teaches the other as far as it can be trusted: phi, the share of the word's characters that it found. It
cannot start from a random network; `losses.word_supervision_start_step` and `word_supervision_ramp_steps` put it
off until the maps mean something.

Letters: B batch, h w map, N positions, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from textscanner.charset import FIRST_CHARACTER_ID
from textscanner.model.assembly import Outputs

FOREGROUND = 0.2  # epsilon: cells whose localization is above it
GAMMA = 2.0  # how strongly the confidence factors punish missed characters
CLASS_SHARE = 0.2  # lambda: weight of L_g beside L_h


class MutualLosses(NamedTuple):
    """Per sample, float32 [B].

    Attributes:
      loss: L_m.
      phi_classes: the share of characters that the class map finds, phi_g.
      phi_order: the share of characters that the order map finds, phi_h.
    """

    loss: tf.Tensor
    phi_classes: tf.Tensor
    phi_order: tf.Tensor


def mutual_losses(outputs: Outputs, ids: tf.Tensor, length: tf.Tensor) -> MutualLosses:
    """L_m of a batch; 0, with zero gradients, where the maps find nothing.

    Args:
      outputs: the network's logits.
      ids: int32 [B, N], class ids, 0 behind the word.
      length: int32 [B].
    """
    positions = ids.shape[1]
    known = tf.sequence_mask(length, positions) & (ids >= FIRST_CHARACTER_ID)  # v_k [B, N]
    same = tf.cast(ids[:, :, None] == ids[:, None, :], tf.float32) * tf.cast(known, tf.float32)[:, None, :]
    single = known & (tf.reduce_sum(same, -1) < 1.5)  # u_k [B, N]
    foreground = (tf.sigmoid(outputs.localization) > FOREGROUND)[..., None]  # [B, h, w, 1]
    order_cells = tf.argmax(outputs.order, -1, tf.int32)[..., None] == tf.range(1, positions + 1)
    class_cells = tf.argmax(outputs.classes, -1, tf.int32)[..., None] == ids[:, None, None, :]
    by_order = tf.cast(order_cells & foreground & known[:, None, None, :], tf.float32)  # psi_h [B, h, w, N]
    by_class = tf.cast(class_cells & foreground & single[:, None, None, :], tf.float32)  # psi_g [B, h, w, N]

    wanted = tf.one_hot(ids, outputs.classes.shape[-1])  # [B, N, C]
    class_entropy = -tf.einsum("bhwc,bkc->bhwk", tf.nn.log_softmax(outputs.classes), wanted)
    order_entropy = -tf.nn.log_softmax(outputs.order)[..., 1:]
    learnt_by_classes, phi_order = _taught(class_entropy, by_order, known)  # sum_k L_g^k / n, phi_h
    learnt_by_order, phi_classes = _taught(order_entropy, by_class, known)  # sum_k L_h^k / n, phi_g
    loss = phi_classes**GAMMA * learnt_by_order + CLASS_SHARE * phi_order**GAMMA * learnt_by_classes
    return MutualLosses(loss, phi_classes, phi_order)


def _taught(entropy: tf.Tensor, cells: tf.Tensor, known: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The mean over a word's characters of the mean entropy over each one's cells [B]; the share that has cells [B]."""
    size = tf.reduce_sum(cells, (1, 2))  # [B, N]
    each = tf.reduce_sum(entropy * cells, (1, 2)) / tf.maximum(size, 1.0)
    count = tf.maximum(tf.reduce_sum(tf.cast(known, tf.float32), -1), 1.0)
    found = tf.reduce_sum(tf.cast(size > 0, tf.float32), -1) / count
    return tf.reduce_sum(each, -1) / count, tf.stop_gradient(found)
