"""Comparison of an exported model with its checkpoint on the same images.

Shapes: B batch, H W input pixels, N positions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from textscanner.data.images import fit
from textscanner.evaluation.metrics import WordCounts
from textscanner.export.exported_function import RunExported
from textscanner.inference.postprocess import READ_BATCH
from textscanner.inference.reader import Reader

NUM_NOISE_IMAGES = 64
SURE_CONFIDENCE = 0.5  # word confidence from which rounding must not change the reading


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Counts over images that both have read. Comparisons of parts add up.

    Attributes:
      num_words: images read.
      num_different: of these, how many the exported model reads differently.
      num_sure, num_sure_different: the same for words that the checkpoint reads with SURE_CONFIDENCE or more.
      confidence_gap: largest difference of a character's confidence, 0..1, among words read alike.
      checkpoint_counts, exported_counts: scores of both against the labels, where these are known.
    """

    num_words: int = 0
    num_different: int = 0
    num_sure: int = 0
    num_sure_different: int = 0
    confidence_gap: float = 0.0
    checkpoint_counts: WordCounts = dataclasses.field(default_factory=WordCounts)
    exported_counts: WordCounts = dataclasses.field(default_factory=WordCounts)

    def __add__(self, other: Comparison) -> Comparison:
        return Comparison(
            num_words=self.num_words + other.num_words,
            num_different=self.num_different + other.num_different,
            num_sure=self.num_sure + other.num_sure,
            num_sure_different=self.num_sure_different + other.num_sure_different,
            confidence_gap=max(self.confidence_gap, other.confidence_gap),
            checkpoint_counts=self.checkpoint_counts + other.checkpoint_counts,
            exported_counts=self.exported_counts + other.exported_counts,
        )


def noise(reader: Reader) -> list[np.ndarray]:
    """NUM_NOISE_IMAGES random images of the network's input size, uint8 [H, W, 3].

    A network is never confident on noise, so even small numerical errors change what it reads.
    """
    model = reader.config.model
    shape = (NUM_NOISE_IMAGES, model.height_px, model.width_px, 3)
    return list(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def compare(reader: Reader, run: RunExported, images: Sequence[np.ndarray], texts: Sequence[str] = ()) -> Comparison:
    """Reads images with the checkpoint and with the exported model.

    Args:
      reader: the checkpoint.
      run: the exported model.
      images: uint8 RGB [H, W, 3] of any size.
      texts: their labels; empty if not known.
    """
    total = Comparison()
    for start in range(0, len(images), READ_BATCH):
        part = slice(start, start + READ_BATCH)
        batch = np.stack([fit(image, reader.config.model)[0] for image in images[part]])
        total += _compare_batch(reader, run, batch, texts[part])
    return total


def _compare_batch(reader: Reader, run: RunExported, batch: np.ndarray, texts: Sequence[str]) -> Comparison:
    """Compares fitted images, uint8 [B, H, W, 3]."""
    decoded, outputs = reader.decode_batch(batch), run(batch)
    is_different = (decoded.ids != outputs["ids"]).any(1)  # [B]
    gaps = np.abs(decoded.confidences - outputs["confidences"])[~is_different]  # [words, N]
    is_sure = decoded.word_confidence >= SURE_CONFIDENCE
    return Comparison(
        num_words=len(batch),
        num_different=int(is_different.sum()),
        num_sure=int(is_sure.sum()),
        num_sure_different=int((is_different & is_sure).sum()),
        confidence_gap=float(np.nan_to_num(gaps, nan=np.inf).max(initial=0)),
        checkpoint_counts=_count(reader, decoded.ids, texts),
        exported_counts=_count(reader, outputs["ids"], texts),
    )


def _count(reader: Reader, ids: np.ndarray, texts: Sequence[str]) -> WordCounts:
    """Scores class ids int32 [B, N] against labels; no counts if there are none."""
    return WordCounts.from_pairs(texts, [reader.charset.decode(row) for row in ids]) if texts else WordCounts()
