"""Character quads -> training maps, in the graph, vectorised, static shapes (spec section 4; paper, section 3.3).

Letters: B batch, N characters, h w map. Everything is computed from at most N quads per image where it is used, so
that only pixels and quads travel. Map coordinates: pixel / stride, cell centres at + 0.5.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from textscanner.config import ModelConfig, TargetConfig

IGNORE = -1


class Targets(NamedTuple):
    """Training maps.

    Attributes:
      localization: Q* float32 [B, h, w], 0..1, exactly 1 at each character's peak cell.
      order: int32 [B, h, w], 0 background, 1..N the character's position in the word.
      classes: int32 [B, h, w], the class id inside a character's core, IGNORE elsewhere.
    """

    localization: tf.Tensor
    order: tf.Tensor
    classes: tf.Tensor


def draw_targets(
    quads: tf.Tensor, ids: tf.Tensor, length: tf.Tensor, model: ModelConfig, config: TargetConfig
) -> Targets:
    """The maps of a batch.

    Args:
      quads: float32 [B, N, 4, 2], x y in pixels of the network's input, corners TL TR BR BL; rows past `length` are
        ignored, and an image without boxes has length 0 here.
      ids: int32 [B, N], class ids, 0 behind the word.
      length: int32 [B].
      model, config: map size and label shape.
    """
    stride = tf.constant([model.map_stride_x, model.map_stride_y], tf.float32)
    cells = quads / stride
    valid = tf.sequence_mask(length, model.max_label_length, tf.float32)  # [B, N]
    gaussians = _gaussians(cells, valid, model, config)  # [B, N, h, w]
    nearest = tf.argmax(gaussians, 1, tf.int32)  # [B, h, w]
    localization = tf.reduce_max(gaussians, 1)
    order = tf.where(localization > config.order_threshold, nearest + 1, 0)
    if config.class_region == "shrunk":
        inside = _shrunk(cells, valid, model, config.shrink_ratio) | (gaussians >= 1.0)
        owned = tf.where(inside, gaussians, -1.0)
        owner, covered = tf.argmax(owned, 1, tf.int32), tf.reduce_max(owned, 1) >= 0
    else:
        owner, covered = nearest, localization > config.class_threshold
    classes = tf.where(covered, tf.gather(ids, owner, axis=1, batch_dims=1), IGNORE)
    return Targets(localization, order, classes)


def _gaussians(cells: tf.Tensor, valid: tf.Tensor, model: ModelConfig, config: TargetConfig) -> tf.Tensor:
    """Y_k [B, N, h, w]: a separable Gaussian at the centre of each quad's bounding box, peak cell exactly 1."""
    low, high = tf.reduce_min(cells, 2), tf.reduce_max(cells, 2)  # [B, N, 2]
    centre, size = (low + high) / 2, high - low
    stride = tf.constant([model.map_stride_x, model.map_stride_y], tf.float32)
    if config.sigma == "stride":
        sigma = tf.broadcast_to(2.0 / stride, tf.shape(centre))
    else:
        sigma = tf.clip_by_value(config.sigma_box * size, config.sigma_min_cells, config.sigma_max_px / stride)
    along_x = _axis(centre[..., 0], sigma[..., 0], model.map_width)
    along_y = _axis(centre[..., 1], sigma[..., 1], model.map_height)
    return along_y[..., :, None] * along_x[..., None, :] * valid[..., None, None]


def _axis(centre: tf.Tensor, sigma: tf.Tensor, size: int) -> tf.Tensor:
    """exp(-d^2 / 2 sigma^2) over the cells of one axis [B, N, size], divided by its own maximum."""
    at = tf.range(size, dtype=tf.float32) + 0.5
    exponent = -0.5 * tf.square((at - centre[..., None]) / sigma[..., None])
    return tf.exp(exponent - tf.reduce_max(exponent, -1, keepdims=True))


def _shrunk(cells: tf.Tensor, valid: tf.Tensor, model: ModelConfig, ratio: float) -> tf.Tensor:
    """bool [B, N, h, w]: cells inside the quad moved in by d = A (1 - r^2) / L (Vatti), half plane by half plane."""
    following = tf.roll(cells, -1, 2)
    edge = following - cells  # [B, N, 4, 2]
    length = tf.norm(edge, axis=-1)
    cross = cells[..., 0] * following[..., 1] - following[..., 0] * cells[..., 1]
    signed_area = tf.reduce_sum(cross, -1) / 2
    inset = tf.abs(signed_area) * (1 - ratio**2) / tf.maximum(tf.reduce_sum(length, -1), 1e-6)  # [B, N]
    # Inward normal: turned left of the edge for a positive area (image axes: y down), right for a mirrored quad.
    turn = tf.where(signed_area >= 0, 1.0, -1.0)[..., None]
    normal = tf.stack([-edge[..., 1], edge[..., 0]], -1) / tf.maximum(length, 1e-6)[..., None]
    normal *= turn[..., None]
    offset = -tf.reduce_sum(normal * cells, -1) - inset[..., None]  # [B, N, 4]
    xs = tf.range(model.map_width, dtype=tf.float32) + 0.5
    ys = tf.range(model.map_height, dtype=tf.float32) + 0.5
    along_x = normal[..., 0, None] * xs  # [B, N, 4, w]
    along_y = normal[..., 1, None] * ys + offset[..., None]  # [B, N, 4, h]
    distance = tf.reduce_min(along_y[..., :, None] + along_x[..., None, :], 2)
    return (distance >= 0) & (valid[..., None, None] > 0)
