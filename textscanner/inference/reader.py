"""Reading words: the network, its charset and its threshold behind two calls.

The same object reads for a person (`textscanner.load(path).read(images)`), for evaluation, and inside training for
validation and pictures.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from textscanner.charset import Charset
from textscanner.checkpoint_files import NO_VOCABULARY
from textscanner.config import Config
from textscanner.data.images import fit
from textscanner.inference.decode import DEFAULT_THRESHOLD, Decoded
from textscanner.inference.postprocess import READ_BATCH, Reading, read_images
from textscanner.inference.read_step import make_read_step
from textscanner.inference.vocabulary import load_vocabulary
from textscanner.model.assembly import build_without_pretrained, forward


@dataclasses.dataclass(frozen=True, eq=False)
class Maps:
    """What the network saw and drew.

    Attributes:
      image: uint8 [B, H, W, 3] RGB, the network's input.
      localization: float32 [B, h, w], Q in 0..1.
      order: int32 [B, h, w], the likeliest position, 0 background.
      classes: int32 [B, h, w], the likeliest class id, background left out.
    """

    image: np.ndarray
    localization: np.ndarray
    order: np.ndarray
    classes: np.ndarray


class Reader:
    """A network that reads word images, uint8 RGB [H, W, 3] of any size."""

    def __init__(
        self,
        config: Config,
        model: keras.Model,
        step: int = 0,
        metrics: dict[str, float] | None = None,
        threshold: float = DEFAULT_THRESHOLD,
        vocabulary: str = NO_VOCABULARY,
    ) -> None:
        self.config = config
        self.model = model
        self.step = step
        self.metrics = dict(metrics or {})
        self.threshold = threshold
        self.vocabulary = load_vocabulary(vocabulary, config.charset)
        self._read_step = make_read_step(model, config)

    def in_float32(self) -> Reader:
        """This reader, or one with its weights that computes in float32 if it was trained with something else."""
        if self.config.optimizer.precision == "float32":
            return self
        reader = copy.copy(self)
        optimizer = dataclasses.replace(self.config.optimizer, precision="float32")
        reader.config = dataclasses.replace(self.config, optimizer=optimizer)
        reader.model = build_without_pretrained(reader.config)
        reader.model.set_weights(self.model.get_weights())
        reader._read_step = make_read_step(reader.model, reader.config)
        return reader

    @property
    def charset(self) -> Charset:
        """The alphabet that readings are made of."""
        return self.config.charset

    def read(self, images: Sequence[np.ndarray]) -> list[Reading]:
        """A reading per image, in order."""
        how = (self.config.model, self.charset, self.decode_batch, self.threshold, self.vocabulary)
        return read_images(images, *how)

    def decode_batch(self, inputs: np.ndarray) -> Decoded:
        """Raw decodings of fitted images, uint8 [B, H, W, 3] with B up to READ_BATCH, as NumPy arrays.

        Batches are filled up to READ_BATCH: one shape, one plan of the kernels, and a row's result does not depend on
        how many came with it.
        """
        count = len(inputs)
        padded = np.zeros((READ_BATCH, *inputs.shape[1:]), np.uint8)
        padded[:count] = inputs
        decoded = self._read_step(tf.constant(padded), tf.constant(self.threshold, tf.float32))
        return Decoded(*(value.numpy()[:count] for value in decoded))

    def maps(self, images: Sequence[np.ndarray]) -> Maps:
        """The network's maps for a few images."""
        inputs = np.stack([fit(image, self.config.model)[0] for image in images])
        outputs = forward(self.model, tf.constant(inputs), training=False)
        return Maps(
            image=inputs,
            localization=tf.sigmoid(outputs.localization).numpy(),
            order=tf.argmax(outputs.order, -1, tf.int32).numpy(),
            classes=(1 + tf.argmax(outputs.classes[..., 1:], -1, tf.int32)).numpy(),
        )
