"""TextScanner: reads the text of word images (Wan et al., AAAI 2020).

`load` and `load_fast` open a checkpoint; the reader that they return reads images. Importing this package does not
import TensorFlow; the first `load` does.

Examples:
  >>> import textscanner
  >>> reader = textscanner.load_fast("small")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textscanner.inference.onnx_reader import OnnxReader
    from textscanner.inference.reader import Reader

__version__ = "0.1.0"


def load(path: str, vocabulary: str = "none") -> Reader:
    """Loads a checkpoint for reading with TensorFlow.

    Args:
      path: a checkpoint folder on this machine, or the name of bundled pretrained weights (`small`, `small-rendered`).
      vocabulary: word prior that corrects ambiguous readings: languages (`en`, `en+de`), a file with one word per line,
        or `none`.

    Raises:
      UserError: `path` is not a checkpoint, or there is no such vocabulary.

    Examples:
      >>> import cv2, numpy as np
      >>> import textscanner
      >>> image = np.full((48, 180, 3), 255, np.uint8)
      >>> image = cv2.putText(image, "hello", (18, 36), cv2.FONT_HERSHEY_SIMPLEX, 1.4, (0, 0, 0), 3)
      >>> reader = textscanner.load("small")
      >>> [reading] = reader.read([image])
      >>> reading.text
      'hello'
      >>> 0 < reading.confidence <= 1
      True
      >>> [round(character.x_px) for character in reading.characters] == sorted(
      ...     round(character.x_px) for character in reading.characters
      ... )
      True
    """
    from textscanner.checkpoint import load as load_checkpoint
    from textscanner.checkpoint_files import shipped_weights

    return load_checkpoint(shipped_weights().get(path, path), vocabulary)


def load_fast(path: str, vocabulary: str = "none") -> Reader | OnnxReader:
    """Loads a checkpoint for reading with the runtime that starts fastest.

    If the folder contains an exported network (`model.onnx`), ONNX Runtime reads it and TensorFlow is not imported;
    otherwise this is `load`. The result has the same `read` method.

    Args:
      path: as for `load`.
      vocabulary: as for `load`.

    Raises:
      UserError: `path` is not a checkpoint, or there is no such vocabulary.

    Examples:
      >>> import numpy as np
      >>> import textscanner
      >>> reader = textscanner.load_fast("small", vocabulary="en")
      >>> image = np.full((32, 128, 3), 127, np.uint8)
      >>> len(reader.read([image, image]))
      2
    """
    import pathlib

    from textscanner.checkpoint_files import ONNX_NAME, shipped_weights

    folder = pathlib.Path(shipped_weights().get(path, path))
    if not (folder / ONNX_NAME).is_file():
        return load(str(folder), vocabulary)
    from textscanner.inference.onnx_reader import OnnxReader

    return OnnxReader(folder, vocabulary)
