"""Pseudo-labels: character quads that a trained network predicts for words without them.

A position's heat map H_k is a Gaussian around the character. With `targets.sigma=box`, `training/targets.py` draws it
with a standard deviation that is a fixed fraction of the character's box (`targets.sigma_box`), so its mean and
standard deviation give the box back, within limits: `targets.sigma_min_cells` and `targets.sigma_max_px` bound the
deviation, so with the default values boxes below 2 cells come out larger and boxes above 32 px smaller. With
`targets.sigma=stride` all Gaussians are equally wide and give no box. Quads are only returned for readings that equal
the label.

Shapes: B batch, H W input pixels, h w map cells, N positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from textscanner.config import ModelConfig, TargetConfig, require
from textscanner.data.images import ResizeInfo, fit
from textscanner.inference.decode import Decoded, Probabilities, decode_maps, probabilities
from textscanner.inference.postprocess import READ_BATCH, pad_batch
from textscanner.inference.reader import Reader
from textscanner.model.assembly import forward
from textscanner.model.positions import heat_mass, position_heat

HEAT_FLOOR = 0.2  # fraction of a position's peak below which heat is dropped: the tail covers the whole map
# Side of a box over the standard deviation of the heat above the floor, (x, y): medians over rendered words with known
# boxes, read by a network that was trained with targets.sigma_box = MEASURED_SIGMA_BOX.
MEASURED_BOX_PER_STD = (5.4, 5.3)
MEASURED_SIGMA_BOX = 0.25
UNIT_CORNERS = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])  # TL TR BR BL around a centre


def box_per_std(targets: TargetConfig) -> np.ndarray:
    """Side of a box over the standard deviation of its heat, for a network trained on these targets.

    Returns:
      float64 [2], (x, y).

    Raises:
      UserError: their Gaussians do not depend on the boxes.
    """
    require(
        targets.sigma == "box",
        "targets.sigma",
        targets.sigma,
        "the network marks all characters equally wide, so their boxes are unknown; give a checkpoint that was "
        "trained with targets.sigma=box",
    )
    return np.array(MEASURED_BOX_PER_STD) * (MEASURED_SIGMA_BOX / targets.sigma_box)


def heat_boxes(maps: Probabilities, model: ModelConfig) -> tf.Tensor:
    """Centre and standard deviation of each position's heat.

    Returns:
      float32 [B, N, 4]: centre x, centre y, std x, std y in input pixels.
    """
    heat = position_heat(maps.order, maps.localization)  # [B, h, w, N]
    peak = tf.reduce_max(heat, (1, 2), keepdims=True)
    heat = tf.where(heat >= HEAT_FLOOR * peak, heat, 0.0)
    heat /= heat_mass(heat)[:, None, None]
    x, std_x = _mean_and_std(tf.reduce_sum(heat, 1), model.map_stride_x)
    y, std_y = _mean_and_std(tf.reduce_sum(heat, 2), model.map_stride_y)
    return tf.stack([x, y, std_x, std_y], -1)


def _mean_and_std(profile: tf.Tensor, stride: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and standard deviation [B, N], in pixels, of a distribution over the cells of one axis [B, cells, N]."""
    pixels = (tf.range(profile.shape[1], dtype=tf.float32)[None, :, None] + 0.5) * stride
    mean = tf.reduce_sum(profile * pixels, 1)
    variance = tf.reduce_sum(profile * tf.square(pixels - mean[:, None]), 1)
    return mean, tf.sqrt(tf.maximum(variance, stride**2 / 12))  # at least that of a uniform density over one cell


class PseudoLabeler:
    """Predicts the character quads of words whose text is known."""

    def __init__(self, reader: Reader, min_confidence: float) -> None:
        """Compiles the network with decoding and boxes, so that it runs once per batch.

        Args:
          reader: the trained network.
          min_confidence: word confidence in 0..1 from which a reading is used.

        Raises:
          UserError: the network was not trained with `targets.sigma=box`.
        """
        self._box_per_std = box_per_std(reader.config.targets)
        self.reader = reader
        self.min_confidence = min_confidence
        model = reader.config.model

        def predict(image: tf.Tensor, threshold: tf.Tensor) -> tuple[Decoded, tf.Tensor]:
            maps = probabilities(forward(reader.model, image, training=False))
            return decode_maps(maps, threshold, model.map_stride_x, model.map_stride_y), heat_boxes(maps, model)

        self._predict = tf.function(predict, reduce_retracing=True)

    def quads(
        self, images: Sequence[np.ndarray], texts: Sequence[str], case_known: Sequence[bool]
    ) -> list[np.ndarray | None]:
        """Predicts the quads of each word.

        Args:
          images: uint8 RGB [H, W, 3] of any size, at most READ_BATCH.
          texts: labels in NFC, one per image. A label with a character that has no position gets no quads.
          case_known: whether the case of each label is known; a reading of the others may differ from them in case.

        Returns:
          float32 [len(text), 4, 2] per image in pixels of that image, corners TL TR BR BL; None where the reading
          differs from the label or its confidence is below `min_confidence`.
        """
        assert len(images) <= READ_BATCH, f"{len(images)} images in a batch: at most {READ_BATCH}"
        fitted = [fit(image, self.reader.config.model) for image in images]
        inputs = pad_batch(np.stack([pixels for pixels, _ in fitted]))
        decoded, boxes = self._predict(tf.constant(inputs), tf.constant(self.reader.threshold, tf.float32))
        ids, confidences, boxes = decoded.ids.numpy(), decoded.word_confidence.numpy(), boxes.numpy()
        return [
            _box_quads(boxes[i, : len(texts[i])], self._box_per_std, resize, images[i].shape)
            if self._is_read_as(texts[i], case_known[i], ids[i], float(confidences[i]))
            else None
            for i, (_, resize) in enumerate(fitted)
        ]

    def _is_read_as(self, text: str, case_known: bool, ids: np.ndarray, confidence: float) -> bool:
        """Whether ids int32 [N] spell the label confidently, with one position for each of its characters."""
        charset = self.reader.charset
        if charset.unknown_characters(text) or not charset.has_position(text).all():
            return False
        reading, label = charset.decode(ids), charset.normalize(text)
        if not case_known:
            reading, label = reading.lower(), label.lower()
        return confidence >= self.min_confidence and reading == label


def _box_quads(
    boxes: np.ndarray, size_per_std: np.ndarray, resize: ResizeInfo, image_shape: tuple[int, ...]
) -> np.ndarray:
    """Quads float32 [n, 4, 2] in pixels of the original image from `heat_boxes` rows [n, 4] of the fitted one.

    `size_per_std` is from `box_per_std`.
    """
    scale = np.array([resize.scale_x, resize.scale_y])
    centre = boxes[:, :2] / scale
    half_size = 0.5 * boxes[:, 2:] * size_per_std / scale
    quads = centre[:, None] + UNIT_CORNERS * half_size[:, None]
    return np.asarray(np.clip(quads, 0, [image_shape[1], image_shape[0]]), np.float32)
