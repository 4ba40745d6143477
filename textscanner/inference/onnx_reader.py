"""Reads words with ONNX Runtime. The bundled weights include their exported network.

It starts in a fraction of TensorFlow's time, and the export checked that it reads like the checkpoint. Each core reads
batches of its own: a session that splits one batch over the cores waits for the slowest core at every layer, and spins
while it waits. Small batches stay in the cache.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from textscanner.checkpoint_files import CONFIG_NAME, NO_VOCABULARY, ONNX_NAME
from textscanner.config import Config
from textscanner.config_parsing import json_object
from textscanner.errors import UserError
from textscanner.inference.export_outputs import EXPORT_OUTPUTS, INPUT_NAME, OUTPUT_NAMES
from textscanner.inference.postprocess import Reading, read_images
from textscanner.inference.vocabulary import load_vocabulary

MAX_BATCH = 16


class _OutputArrays(NamedTuple):
    """See `textscanner.inference.postprocess.DecodedArrays`."""

    ids: np.ndarray
    confidences: np.ndarray
    centres: np.ndarray
    scores: np.ndarray
    presence: np.ndarray
    word_confidence: np.ndarray


class OnnxReader:
    """Reads like `textscanner.inference.reader.Reader`, without maps and without training."""

    def __init__(self, folder: pathlib.Path, vocabulary: str = NO_VOCABULARY) -> None:
        """Opens the exported network of a checkpoint folder.

        Args:
          folder: a checkpoint with ONNX_NAME in it.
          vocabulary: as for `textscanner.load`.

        Raises:
          UserError: the folder holds no exported network, a file is damaged, or there is no such vocabulary.
        """
        path = folder / ONNX_NAME
        if not path.is_file():
            raise UserError(f"{path} does not exist: export the checkpoint {folder} as ONNX into its own folder")
        self.config = _read_config(folder / CONFIG_NAME)
        self._session = _open_session(path)
        self._threshold = _decoder_threshold(self._session, path)
        self._vocabulary = load_vocabulary(vocabulary, self.config.charset)
        self._num_threads = os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(self._num_threads)

    def read(self, images: Sequence[np.ndarray]) -> list[Reading]:
        """Reads uint8 RGB images [H, W, 3] of any size; one reading per image, in order."""
        size = min(MAX_BATCH, -(-len(images) // self._num_threads)) or 1
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        return [reading for batch in self._threads.map(self._read_batch, batches) for reading in batch]

    def _read_batch(self, images: Sequence[np.ndarray]) -> list[Reading]:
        return read_images(
            images,
            model=self.config.model,
            charset=self.config.charset,
            run=self._run,
            threshold=self._threshold,
            vocabulary=self._vocabulary,
            batch_size=MAX_BATCH,  # a vertical image is read in three orientations
        )

    def _run(self, inputs: np.ndarray) -> _OutputArrays:
        """Runs the network on fitted images, uint8 [B, H, W, 3]."""
        arrays = self._session.run(list(OUTPUT_NAMES), {INPUT_NAME: inputs})
        return _OutputArrays(**dict(zip((output.field for output in EXPORT_OUTPUTS), arrays, strict=True)))


def _read_config(path: pathlib.Path) -> Config:
    if not path.is_file():
        raise UserError(f"{path} does not exist: {path.parent} is not a checkpoint; export into a checkpoint's folder")
    return Config.from_dict(json_object(path.read_bytes(), str(path), "use another checkpoint"), str(path))


def _open_session(path: pathlib.Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
        raise UserError(f"{path} cannot be opened: {error}; export the checkpoint as ONNX again") from None


def _decoder_threshold(session: Any, path: pathlib.Path) -> float:
    """The decoder's threshold, 0..1, which the export stores in the model's metadata."""
    try:
        return float(json.loads(session.get_modelmeta().custom_metadata_map["textscanner"])["threshold"])
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{path} is not a model that this package exported (no threshold in its metadata); "
            "export the checkpoint as ONNX into its own folder"
        ) from None
