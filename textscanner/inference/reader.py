"""A reader: the network with its charset and threshold.

The same object reads for a user (`textscanner.load(path).read(images)`), for evaluation, and during training for
validation and for images of validation words.

Shapes: B batch, H W input pixels, h w map cells.
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
from textscanner.inference.postprocess import Reading, pad_batch, read_images
from textscanner.inference.read_step import make_read_step
from textscanner.inference.vocabulary import load_vocabulary
from textscanner.model.assembly import build_without_pretrained, forward


@dataclasses.dataclass(frozen=True, eq=False)
class Maps:
    """The network's input and its maps, for visualization.

    Attributes:
      image: uint8 [B, H, W, 3] RGB, the network's input.
      localization: float32 [B, h, w], Q in 0..1.
      order: int32 [B, h, w], the most likely position, 0 background.
      classes: int32 [B, h, w], the most likely class id, background excluded.
    """

    image: np.ndarray
    localization: np.ndarray
    order: np.ndarray
    classes: np.ndarray


class Reader:
    """Reads word images with a network.

    Attributes:
      config: the run's config.
      model: the Keras model.
      step: training steps that its weights have seen.
      metrics: of the last validation, `val/word_accuracy` and others.
      threshold: presence threshold of the decoder, 0..1.
      vocabulary: word prior; None for none.

    Examples:
      >>> import numpy as np
      >>> import textscanner
      >>> reader = textscanner.load("small")
      >>> image = np.full((48, 180, 3), 255, np.uint8)
      >>> reader.maps([image]).localization.shape
      (1, 8, 64)
    """

    def __init__(
        self,
        config: Config,
        model: keras.Model,
        step: int = 0,
        metrics: dict[str, float] | None = None,
        threshold: float = DEFAULT_THRESHOLD,
        vocabulary: str = NO_VOCABULARY,
    ) -> None:
        """Wraps a model; `textscanner.load` builds a reader from a checkpoint.

        Raises:
          UserError: there is no such vocabulary.
        """
        self.config = config
        self.model = model
        self.step = step
        self.metrics = dict(metrics or {})
        self.threshold = threshold
        self.vocabulary = load_vocabulary(vocabulary, config.charset)
        self._read_step = make_read_step(model, config)

    def in_float32(self) -> Reader:
        """A reader with the same weights that computes in float32; this one if it does already."""
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
        """The characters that it reads."""
        return self.config.charset

    def read(self, images: Sequence[np.ndarray]) -> list[Reading]:
        """Reads word images.

        Args:
          images: uint8 RGB [H, W, 3] of any size, one word each.

        Returns:
          one reading per image, in order.
        """
        return read_images(
            images,
            model=self.config.model,
            charset=self.charset,
            run=self.decode_batch,
            threshold=self.threshold,
            vocabulary=self.vocabulary,
        )

    def decode_batch(self, inputs: np.ndarray) -> Decoded:
        """Runs network and decoder on fitted images, without a vocabulary.

        Args:
          inputs: uint8 [B, H, W, 3] of the network's input size, B up to READ_BATCH.

        Returns:
          NumPy arrays of B rows.
        """
        decoded = self._read_step(tf.constant(pad_batch(inputs)), tf.constant(self.threshold, tf.float32))
        return Decoded(*(tensor.numpy()[: len(inputs)] for tensor in decoded))

    def maps(self, images: Sequence[np.ndarray]) -> Maps:
        """The network's maps for a few images, uint8 RGB [H, W, 3] of any size."""
        inputs = np.stack([fit(image, self.config.model)[0] for image in images])
        outputs = forward(self.model, tf.constant(inputs), training=False)
        return Maps(
            image=inputs,
            localization=tf.sigmoid(outputs.localization).numpy(),
            order=tf.argmax(outputs.order, -1, tf.int32).numpy(),
            classes=(1 + tf.argmax(outputs.classes[..., 1:], -1, tf.int32)).numpy(),
        )
