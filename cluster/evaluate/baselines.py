"""Other recognisers behind our reader's one method, for a table with all of them scored alike in one run.

They are not dependencies: rapidocr wants its own build of OpenCV, and Tesseract is a program. A baseline reads the crop
as it is; nothing is tuned for it but the mode for a single word or line.
"""

from __future__ import annotations

import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import cv2
import numpy as np

from textscanner.inference.postprocess import Reading

RAPIDOCR_HELP = (
    "--baseline rapidocr needs the package. Its requirements bring a second OpenCV, so leave them out: "
    "pip install --no-deps rapidocr omegaconf antlr4-python3-runtime pyclipper shapely colorlog"
)
TESSERACT_HELP = (
    "--baseline tesseract needs the program and its binding: apt-get install tesseract-ocr && pip install pytesseract"
)
TESSERACT_MIN_HEIGHT_PX = 40  # smaller crops are enlarged: it wants capitals of about 30 pixels


class Recognizer(Protocol):
    """What is evaluated: a `textscanner.inference.reader.Reader`, or a baseline."""

    def read(self, images: Sequence[np.ndarray]) -> list[Reading]:
        """A reading per image, uint8 RGB [H, W, 3], in order."""
        ...


def open_baseline(name: str) -> Recognizer:
    """The baseline of that name.

    Raises:
      ValueError: there is no such baseline, or it is not installed.
    """
    if name not in BASELINES:
        raise ValueError(f"--baseline is {name!r}: there are {', '.join(BASELINES)}")
    return BASELINES[name]()


class _RapidOcr:
    """PP-OCR's recogniser as rapidocr bundles it, without its detector."""

    def __init__(self) -> None:
        try:
            from rapidocr import RapidOCR
        except ImportError as error:
            raise ValueError(f"{RAPIDOCR_HELP} ({error})") from None
        self._engine = RapidOCR(params={"Global.log_level": "error"})

    def read(self, images: Sequence[np.ndarray]) -> list[Reading]:
        readings = []
        for image in images:
            found: Any = self._engine(image[..., ::-1], use_det=False, use_cls=False, use_rec=True)
            texts, scores = found.txts or ("",), found.scores or (0.0,)
            readings.append(Reading(texts[0], float(scores[0]), ()))
        return readings


class _Tesseract:
    """Tesseract in its mode for a single word (`--psm 8`), all images of a call in one process."""

    def __init__(self) -> None:
        try:
            import pytesseract
        except ImportError as error:
            raise ValueError(f"{TESSERACT_HELP} ({error})") from None
        if shutil.which("tesseract") is None:
            raise ValueError(f"{TESSERACT_HELP} (no program of that name)")
        self._tesseract = pytesseract

    def read(self, images: Sequence[np.ndarray]) -> list[Reading]:
        if not images:
            return []
        with tempfile.TemporaryDirectory() as folder:
            names = []
            for i, image in enumerate(images):
                names.append(str(pathlib.Path(folder) / f"{i}.png"))
                cv2.imwrite(names[-1], _enlarged(image)[..., ::-1])
            listing = pathlib.Path(folder) / "images.txt"
            listing.write_text("\n".join(names))
            pages = self._tesseract.image_to_data(
                str(listing), config="--psm 8", output_type=self._tesseract.Output.DICT
            )
        texts, scores = [""] * len(images), [0.0] * len(images)
        for page, text, score in zip(pages["page_num"], pages["text"], pages["conf"], strict=True):
            if float(score) >= 0 and text.strip():
                texts[page - 1] += text.strip()
                scores[page - 1] = float(score) / 100
        return [Reading(text, score, ()) for text, score in zip(texts, scores, strict=True)]


def _enlarged(image: np.ndarray) -> np.ndarray:
    factor = max(1.0, TESSERACT_MIN_HEIGHT_PX / image.shape[0])
    scaled = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    border = [int(v) for v in np.median(scaled.reshape(-1, 3), 0)]
    return cv2.copyMakeBorder(scaled, 10, 10, 10, 10, cv2.BORDER_CONSTANT, value=border)


BASELINES: dict[str, Callable[[], Recognizer]] = {"rapidocr": _RapidOcr, "tesseract": _Tesseract}
