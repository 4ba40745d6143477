"""Character quads -> target maps, in the graph, vectorized, with static shapes (paper, section 3.3; docs/model.md).

The maps are drawn where they are used, from at most N quads per image, so that only pixels and quads travel through the
input pipeline. Map coordinates are pixels / stride; cell centres lie at + 0.5.

Shapes: B batch, h w map cells, N positions.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from textscanner.config import ModelConfig, TargetConfig

IGNORE = -1


class Targets(NamedTuple):
    """Target maps.

    Attributes:
      localization: Q* float32 [B, h, w] in 0..1, exactly 1 at the peak cell of each character.
      order: int32 [B, h, w], 0 background, 1..N the position of the character in the word.
      classes: int32 [B, h, w], the class id inside the core of a character, IGNORE elsewhere.
    """

    localization: tf.Tensor
    order: tf.Tensor
    classes: tf.Tensor


def draw_targets(
    quads: tf.Tensor, ids: tf.Tensor, length: tf.Tensor, model: ModelConfig, config: TargetConfig
) -> Targets:
    """Draws the maps of a batch.

    Args:
      quads: float32 [B, N, 4, 2], x y in pixels of the network's input, corners TL TR BR BL. Rows past `length` are
        ignored; so are characters whose centre is outside the map, where a crop or a careless box left them.
      ids: int32 [B, N], class ids, 0 after the end of the word.
      length: int32 [B], characters per word; 0 for an image without boxes.
      model: size of the maps.
      config: shape of the labels.
    """
    stride = tf.constant([model.map_stride_x, model.map_stride_y], tf.float32)
    cells = quads / stride
    valid = tf.sequence_mask(length, model.max_label_length, tf.float32) * _centre_is_inside(cells, model)  # [B, N]
    gaussians = _gaussians(cells, valid, model, config)  # [B, N, h, w]
    nearest = tf.argmax(gaussians, 1, tf.int32)  # [B, h, w]
    localization = tf.reduce_max(gaussians, 1)
    order = tf.where(localization > config.order_threshold, nearest + 1, 0)  # Eq. 2
    if config.class_region == "shrunk":
        # A quad smaller than a cell may contain no cell centre: its peak cell carries the class in any case.
        inside = _inside_shrunk_quads(cells, valid, model, config.shrink_ratio) | (gaussians >= 1.0)
        inside_gaussians = tf.where(inside, gaussians, -1.0)
        owner, covered = tf.argmax(inside_gaussians, 1, tf.int32), tf.reduce_max(inside_gaussians, 1) >= 0
    else:
        owner, covered = nearest, localization > config.class_threshold
    classes = tf.where(covered, tf.gather(ids, owner, axis=1, batch_dims=1), IGNORE)
    return Targets(localization, order, classes)


def _centre_is_inside(cells: tf.Tensor, model: ModelConfig) -> tf.Tensor:
    """1 where the centre of a quad's bounding box is inside the map: float32 [B, N] from quads [B, N, 4, 2] in cells.

    A Gaussian is scaled to 1 at its nearest cell: outside centres would get a full peak at the border.
    """
    centre = (tf.reduce_min(cells, 2) + tf.reduce_max(cells, 2)) / 2  # [B, N, 2]
    size = tf.constant([model.map_width, model.map_height], tf.float32)
    return tf.cast(tf.reduce_all((centre >= 0) & (centre < size), -1), tf.float32)


def _gaussians(cells: tf.Tensor, valid: tf.Tensor, model: ModelConfig, config: TargetConfig) -> tf.Tensor:
    """Y_k [B, N, h, w]: a separable Gaussian at the centre of each quad's bounding box, exactly 1 at its peak cell.

    Args:
      cells: float32 [B, N, 4, 2], quads in map coordinates.
      valid: float32 [B, N], 1 for the characters of the word that are in the map.
      model: size of the maps.
      config: how the standard deviation is chosen.
    """
    low, high = tf.reduce_min(cells, 2), tf.reduce_max(cells, 2)  # [B, N, 2]
    centre, size = (low + high) / 2, high - low
    stride = tf.constant([model.map_stride_x, model.map_stride_y], tf.float32)
    if config.sigma == "stride":
        sigma = tf.broadcast_to(2.0 / stride, tf.shape(centre))
    else:
        sigma = tf.clip_by_value(config.sigma_box * size, config.sigma_min_cells, config.sigma_max_px / stride)
    along_x = _gaussian_1d(centre[..., 0], sigma[..., 0], model.map_width)
    along_y = _gaussian_1d(centre[..., 1], sigma[..., 1], model.map_height)
    return along_y[..., :, None] * along_x[..., None, :] * valid[..., None, None]


def _gaussian_1d(centre: tf.Tensor, sigma: tf.Tensor, num_cells: int) -> tf.Tensor:
    """exp(-d^2 / 2 sigma^2) over the cells of one axis [B, N, num_cells], divided by its maximum.

    Centre and sigma are [B, N], in cells. Without the division the peak would depend on where the centre lies between
    cells.
    """
    cell_centres = tf.range(num_cells, dtype=tf.float32) + 0.5
    exponent = -0.5 * tf.square((cell_centres - centre[..., None]) / sigma[..., None])
    return tf.exp(exponent - tf.reduce_max(exponent, -1, keepdims=True))


def _inside_shrunk_quads(cells: tf.Tensor, valid: tf.Tensor, model: ModelConfig, ratio: float) -> tf.Tensor:
    """Cells inside each quad after moving its edges inwards by d = A (1 - r^2) / L (Vatti offset).

    A is the area, L the perimeter, r the ratio. A convex quad is the intersection of four half planes, so no polygon
    clipping is needed.

    Args:
      cells: float32 [B, N, 4, 2], quads in map coordinates.
      valid: float32 [B, N], 1 for the characters of the word that are in the map.
      model: size of the maps.
      ratio: r, 0..1.

    Returns:
      bool [B, N, h, w].
    """
    next_corner = tf.roll(cells, -1, 2)
    edge = next_corner - cells  # [B, N, 4, 2]
    length = tf.norm(edge, axis=-1)  # [B, N, 4]
    cross = cells[..., 0] * next_corner[..., 1] - next_corner[..., 0] * cells[..., 1]
    signed_area = tf.reduce_sum(cross, -1) / 2  # [B, N]
    inset = tf.abs(signed_area) * (1 - ratio**2) / tf.maximum(tf.reduce_sum(length, -1), 1e-6)  # d [B, N]
    # Inward normal: to the left of the edge if the area is positive (image axes, y down), to the right for a mirrored
    # quad.
    turn = tf.where(signed_area >= 0, 1.0, -1.0)[..., None]
    normal = tf.stack([-edge[..., 1], edge[..., 0]], -1) / tf.maximum(length, 1e-6)[..., None]
    normal *= turn[..., None]
    offset = -tf.reduce_sum(normal * cells, -1) - inset[..., None]  # [B, N, 4]
    xs = tf.range(model.map_width, dtype=tf.float32) + 0.5
    ys = tf.range(model.map_height, dtype=tf.float32) + 0.5
    along_x = normal[..., 0, None] * xs  # [B, N, 4, w]
    along_y = normal[..., 1, None] * ys + offset[..., None]  # [B, N, 4, h]
    distance = tf.reduce_min(along_y[..., :, None] + along_x[..., None, :], 2)  # to the nearest edge [B, N, h, w]
    return (distance >= 0) & (valid[..., None, None] > 0)
