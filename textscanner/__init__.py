"""TextScanner: reads characters in order from two-dimensional maps (Wan et al., AAAI 2020).

`textscanner.load(path)` opens a checkpoint folder; the reader that it returns reads word images. Importing this package
does not import TensorFlow: that happens on the first `load`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textscanner.inference.onnx_reader import OnnxReader
    from textscanner.inference.reader import Reader

__version__ = "0.1.0"


def load(path: str, vocabulary: str = "none") -> Reader:
    """The reader of a checkpoint folder, or of weights that the package brings, by their name.

    Args:
      vocabulary: which words are likely, beside what the network sees: languages (`en`, `en+de`), a file with a word a
        line, or `none`.

    Raises:
      ValueError: `path` is not a checkpoint, or there is no such vocabulary.
    """
    from textscanner.checkpoint import load as load_checkpoint
    from textscanner.checkpoint_files import shipped_weights

    return load_checkpoint(shipped_weights().get(path, path), vocabulary)


def load_fast(path: str, vocabulary: str = "none") -> Reader | OnnxReader:
    """What reads the same words with the shortest start: ONNX Runtime if the folder holds an exported network.

    Raises:
      ValueError: `path` is not a checkpoint, or there is no such vocabulary.
    """
    import pathlib

    from textscanner.checkpoint_files import ONNX_NAME, shipped_weights

    folder = pathlib.Path(shipped_weights().get(path, path))
    if not (folder / ONNX_NAME).is_file():
        return load(str(folder), vocabulary)
    from textscanner.inference.onnx_reader import OnnxReader

    return OnnxReader(folder, vocabulary)
