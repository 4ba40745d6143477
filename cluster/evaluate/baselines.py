"""Other recognizers behind the interface of our reader, so that one run scores all of them in the same way.

They are not dependencies: rapidocr requires its own build of OpenCV, and Tesseract is a program. A baseline reads the
image as it is; the only setting is the mode for a single word or line.
"""

from __future__ import annotations

import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import cv2
import numpy as np

from textscanner.errors import UserError
from textscanner.inference.postprocess import Reading

RAPIDOCR_REMEDY = (
    "install it without its dependencies, which would add a second OpenCV: "
    "pip install --no-deps rapidocr omegaconf antlr4-python3-runtime pyclipper shapely colorlog"
)
TESSERACT_REMEDY = "install the program and its binding: apt-get install tesseract-ocr && pip install pytesseract"
TESSERACT_MIN_HEIGHT_PX = 40  # smaller images are enlarged: Tesseract expects capitals of about 30 pixels
TESSERACT_BORDER_PX = 10


class Recognizer(Protocol):
    """Reads word images: a `textscanner.inference.reader.Reader`, an `OnnxReader` or a baseline."""

    def read(self, images: Sequence[np.ndarray]) -> list[Reading]:
        """Reads images, uint8 RGB [H, W, 3], in order."""
        ...


def open_baseline(name: str) -> Recognizer:
    """Loads a baseline.

    Raises:
      UserError: there is no such baseline, or it is not installed.
    """
    if name not in BASELINES:
        raise UserError(f"baseline is {name!r}: must be one of {', '.join(BASELINES)}")
    return BASELINES[name]()


class _RapidOcr:
    """PP-OCR's recognizer as bundled by rapidocr, without its detector."""

    def __init__(self) -> None:
        try:
            from rapidocr import RapidOCR
        except ImportError as error:
            raise UserError(f"baseline rapidocr is not installed ({error}): {RAPIDOCR_REMEDY}") from None
        self._engine = RapidOCR(params={"Global.log_level": "error"})

    def read(self, images: Sequence[np.ndarray]) -> list[Reading]:
        readings = []
        for image in images:
            result: Any = self._engine(image[..., ::-1], use_det=False, use_cls=False, use_rec=True)
            texts, scores = result.txts or ("",), result.scores or (0.0,)
            readings.append(Reading(texts[0], float(scores[0]), ()))
        return readings


class _Tesseract:
    """Tesseract in its mode for a single word (`--psm 8`); one process reads all images of a call."""

    def __init__(self) -> None:
        try:
            import pytesseract
        except ImportError as error:
            raise UserError(f"baseline tesseract is not installed ({error}): {TESSERACT_REMEDY}") from None
        if shutil.which("tesseract") is None:
            raise UserError(f"baseline tesseract is not installed (no program tesseract): {TESSERACT_REMEDY}")
        self._tesseract = pytesseract

    def read(self, images: Sequence[np.ndarray]) -> list[Reading]:
        if not images:
            return []
        with tempfile.TemporaryDirectory() as folder:
            names = []
            for i, image in enumerate(images):
                names.append(str(pathlib.Path(folder) / f"{i}.png"))
                cv2.imwrite(names[-1], _enlarge(image)[..., ::-1])
            name_list = pathlib.Path(folder) / "images.txt"
            name_list.write_text("\n".join(names))
            words = self._tesseract.image_to_data(
                str(name_list), config="--psm 8", output_type=self._tesseract.Output.DICT
            )
        texts, scores = [""] * len(images), [0.0] * len(images)
        # An image is a page, and may be read as several words.
        for page, text, score in zip(words["page_num"], words["text"], words["conf"], strict=True):
            if float(score) >= 0 and text.strip():
                texts[page - 1] += text.strip()
                scores[page - 1] = float(score) / 100
        return [Reading(text, score, ()) for text, score in zip(texts, scores, strict=True)]


def _enlarge(image: np.ndarray) -> np.ndarray:
    """Scales a low image up and adds a border in its median colour; uint8 [H, W, 3]."""
    factor = max(1.0, TESSERACT_MIN_HEIGHT_PX / image.shape[0])
    scaled = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    colour = [int(v) for v in np.median(scaled.reshape(-1, 3), 0)]
    border = TESSERACT_BORDER_PX
    return cv2.copyMakeBorder(scaled, border, border, border, border, cv2.BORDER_CONSTANT, value=colour)


BASELINES: dict[str, Callable[[], Recognizer]] = {"rapidocr": _RapidOcr, "tesseract": _Tesseract}
