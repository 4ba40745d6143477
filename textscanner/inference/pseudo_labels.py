"""Character quads that a trained network sees in words that have none: the second way to learn from words.

A position's heat map H_k is a Gaussian about the character (spec section 4 draws it with a standard deviation that is a
fixed share of the character's box), so its mean and spread give the box back. Only for readings that equal the label.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from textscanner.data.images import ResizeInfo, fit
from textscanner.inference.postprocess import READ_BATCH
from textscanner.inference.reader import Reader
from textscanner.model.assembly import Outputs, forward

HEAT_FLOOR = 0.2  # of a position's strongest cell: weaker ones are left out, they lie anywhere
# A box's side over the spread of the heat above the floor, x and y: medians over drawn words (docs/accuracy.md).
BOX_PER_SPREAD = (5.4, 5.3)


def heat_boxes(outputs: Outputs, stride_x: int, stride_y: int) -> tf.Tensor:
    """Centre and spread of each position's heat: float32 [B, N, 4] (x, y, std x, std y) in pixels of the input."""
    heat = tf.nn.softmax(outputs.order)[..., 1:] * tf.sigmoid(outputs.localization)[..., None]  # [B, h, w, N]
    peak = tf.reduce_max(heat, (1, 2), keepdims=True)
    heat = tf.where(heat >= HEAT_FLOOR * peak, heat, 0.0)
    heat /= tf.maximum(tf.reduce_sum(heat, (1, 2), keepdims=True), 1e-6)
    parts = []
    for axis, stride in ((2, stride_x), (1, stride_y)):
        along = tf.reduce_sum(heat, 3 - axis)  # [B, cells, N]
        places = (tf.range(along.shape[1], dtype=tf.float32)[None, :, None] + 0.5) * stride
        centre = tf.reduce_sum(along * places, 1)
        variance = tf.reduce_sum(along * tf.square(places - centre[:, None]), 1)
        parts.append((centre, tf.sqrt(tf.maximum(variance, stride**2 / 12))))  # a single cell is that wide
    (x, std_x), (y, std_y) = parts
    return tf.stack([x, y, std_x, std_y], -1)


class Labeller:
    """Finds the quads of words whose text is known."""

    def __init__(self, reader: Reader, min_confidence: float) -> None:
        self.reader = reader
        self.min_confidence = min_confidence
        model = reader.config.model

        @tf.function(reduce_retracing=True)
        def boxes(image: tf.Tensor) -> tf.Tensor:
            return heat_boxes(forward(reader.model, image, training=False), model.map_stride_x, model.map_stride_y)

        self._boxes = boxes

    def quads(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> list[np.ndarray | None]:
        """float32 [len(text), 4, 2] in pixels of each image; None where the reading is not the label, or not sure.

        Args:
          images: uint8 RGB [H, W, 3], at most READ_BATCH.
          texts: NFC labels; one with a character that the charset passes over gets no quads.
        """
        if len(images) > READ_BATCH:
            raise ValueError(f"{len(images)} images at once: at most {READ_BATCH}")
        fitted = [fit(image, self.reader.config.model) for image in images]
        inputs = np.stack([pixels for pixels, _ in fitted])
        decoded = self.reader.decode_batch(inputs)
        padded = np.zeros((READ_BATCH, *inputs.shape[1:]), np.uint8)
        padded[: len(inputs)] = inputs
        boxes = self._boxes(tf.constant(padded)).numpy()
        return [
            self._quads(decoded.ids[i], float(decoded.word_confidence[i]), boxes[i], how, images[i].shape, texts[i])
            for i, (_, how) in enumerate(fitted)
        ]

    def _quads(
        self, ids: np.ndarray, confidence: float, boxes: np.ndarray, how: ResizeInfo, shape: tuple[int, ...], text: str
    ) -> np.ndarray | None:
        charset = self.reader.charset
        known = charset.has_position(text).all() and not charset.unknown_characters(text)
        if not known or confidence < self.min_confidence or charset.decode(ids) != charset.normalize(text):
            return None
        scale = np.array([how.scale_x, how.scale_y])
        centre = boxes[: len(text), :2] / scale
        half = 0.5 * boxes[: len(text), 2:] * BOX_PER_SPREAD / scale
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        quads = centre[:, None] + corners[None] * half[:, None]
        return np.clip(quads, 0, [shape[1], shape[0]]).astype(np.float32)
