"""Reads words with ONNX Runtime: the weights that the package brings carry their exported network beside them.

It starts in a fraction of TensorFlow's time and reads the same words (`jobs.export` checks that).
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from textscanner.config import Config
from textscanner.layout import CONFIG_NAME, ONNX_NAME
from textscanner.reading import Reading, read_images


class _Arrays(NamedTuple):
    ids: np.ndarray
    confidences: np.ndarray
    centres: np.ndarray
    word_confidence: np.ndarray


class OnnxReader:
    """Reads like `textscanner.reader.Reader`; no maps, no training."""

    def __init__(self, folder: pathlib.Path) -> None:
        import onnxruntime

        self.config = Config.from_dict(json.loads((folder / CONFIG_NAME).read_text()))
        self._session = onnxruntime.InferenceSession(str(folder / ONNX_NAME), providers=["CPUExecutionProvider"])

    def read(self, images: Sequence[np.ndarray]) -> list[Reading]:
        """A reading per image, in order."""
        return read_images(images, self.config.model, self.config.charset, self._run)

    def _run(self, inputs: np.ndarray) -> _Arrays:
        names = ["ids", "confidences", "positions", "word_confidence"]
        return _Arrays(*self._session.run(names, {"image": inputs}))
