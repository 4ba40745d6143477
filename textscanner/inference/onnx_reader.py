"""Reads words with ONNX Runtime: the weights that the package brings carry their exported network beside them.

It starts in a fraction of TensorFlow's time, and `jobs.export` has checked that it reads as the checkpoint does. Each
core reads a batch of its own: a session that spreads one batch over the cores waits for the slowest at every layer, and
spins while it waits. Small batches stay in the cache.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from textscanner.checkpoint_files import CONFIG_NAME, NO_VOCABULARY, ONNX_NAME
from textscanner.config import Config
from textscanner.inference.postprocess import Reading, read_images
from textscanner.inference.vocabulary import load_vocabulary

MAX_BATCH = 16


class _Arrays(NamedTuple):
    ids: np.ndarray
    confidences: np.ndarray
    centres: np.ndarray
    word_confidence: np.ndarray
    scores: np.ndarray
    presence: np.ndarray


class OnnxReader:
    """Reads like `textscanner.inference.reader.Reader`; no maps, no training."""

    def __init__(self, folder: pathlib.Path, vocabulary: str = NO_VOCABULARY) -> None:
        """Opens the exported network of a checkpoint folder; `vocabulary` as for `textscanner.load`.

        Raises:
          ValueError: the folder holds none, or there is no such vocabulary.
        """
        import onnxruntime

        path = folder / ONNX_NAME
        if not path.is_file():
            raise ValueError(f"{path} does not exist: python -m jobs.export {folder} --format onnx --out {folder}")
        self.config = Config.from_dict(json.loads((folder / CONFIG_NAME).read_text()))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        told = json.loads(self._session.get_modelmeta().custom_metadata_map["textscanner"])
        self._threshold = float(told["threshold"])
        self._vocabulary = load_vocabulary(vocabulary, self.config.charset)
        self._num_threads = os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(self._num_threads)

    def read(self, images: Sequence[np.ndarray]) -> list[Reading]:
        """A reading per image, in order."""
        size = min(MAX_BATCH, -(-len(images) // self._num_threads)) or 1
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        return [reading for batch in self._threads.map(self._read_batch, batches) for reading in batch]

    def _read_batch(self, images: Sequence[np.ndarray]) -> list[Reading]:
        config = self.config
        return read_images(images, config.model, config.charset, self._run, self._threshold, self._vocabulary)

    def _run(self, inputs: np.ndarray) -> _Arrays:
        names = ["ids", "confidences", "positions", "word_confidence", "scores", "presence"]
        return _Arrays(*self._session.run(names, {"image": inputs}))
