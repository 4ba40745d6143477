"""Decodes images and resizes them to the network's input. Images are uint8 RGB [H, W, 3] everywhere in the project."""

from __future__ import annotations

import dataclasses

import numpy as np

try:
    import cv2
except ImportError as error:  # libGL or libglib is missing, as in many container images
    raise ImportError(
        f"OpenCV cannot be loaded ({error}). On Debian or Ubuntu: apt-get install libgl1 libglib2.0-0; "
        "or, in the same environment: pip uninstall -y opencv-python && pip install opencv-python-headless"
    ) from error

from textscanner.config import ModelConfig
from textscanner.data.image_header import MAX_PIXELS, MAX_SIDE_PX, image_size
from textscanner.errors import UserError

cv2.setNumThreads(1)  # parallelism comes from processes; OpenCV's own threads would compete with training for cores

PAD_VALUE = 127
# A crop taller than this many widths is vertical: two or more characters in it are, as a rule, turned by 90 degrees or
# stand in a column.
VERTICAL_RATIO = 1.5


@dataclasses.dataclass(frozen=True)
class ResizeInfo:
    """How an image was resized: input pixel = image pixel * scale, per axis.

    Attributes:
      scale_x: horizontal scale.
      scale_y: vertical scale.
      used_width_px: columns of the input that show the image; those to their right are padding.
    """

    scale_x: float
    scale_y: float
    used_width_px: int


def decode(data: bytes, source: str) -> np.ndarray:
    """Decodes an encoded image.

    Args:
      data: the bytes of a JPEG, PNG, WebP, BMP, TIFF or GIF of at most `MAX_PIXELS`.
      source: name for error messages.

    Returns:
      uint8 RGB [H, W, 3].

    Raises:
      UserError: `data` is not an image, is too large, or is truncated beyond what the decoder can read.
    """
    if not data:
        raise UserError(f"{source}: the file is empty; give an image")
    _check_size(data, source)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise UserError(f"{source}: {error.err}") from None
    if image is None:
        raise UserError(f"{source}: not an image that OpenCV can decode")
    return np.asarray(image)


def is_vertical(image: np.ndarray) -> bool:
    """Whether an image [H, W, 3] is taller than VERTICAL_RATIO times its width."""
    height, width = image.shape[:2]
    return bool(height > VERTICAL_RATIO * width)


def _check_size(data: bytes, source: str) -> None:
    """Before the decoder allocates what the header states."""
    size = image_size(data)
    if size is None or min(size) < 1:
        raise UserError(f"{source}: not a JPEG, PNG, WebP, BMP, TIFF or GIF image")
    width, height = size
    if width * height > MAX_PIXELS or max(size) > MAX_SIDE_PX:
        raise UserError(
            f"{source}: the image has {width:,} x {height:,} pixels; at most {MAX_PIXELS:,} are decoded, and "
            f"{MAX_SIDE_PX:,} per side: crop or shrink it"
        )


def fit(image: np.ndarray, model: ModelConfig) -> tuple[np.ndarray, ResizeInfo]:
    """Resizes an image to the network's input.

    `model.resize` is `stretch`: fills the whole input (paper, section 4.2); or `pad`: keeps the aspect ratio up to
    `model.max_stretch` and pads on the right.

    Returns:
      The input, uint8 [model.height_px, model.width_px, 3], and how the image was resized.
    """
    height, width = image.shape[:2]
    used_width = model.width_px
    if model.resize == "pad":
        natural_width = width * model.height_px / height
        used_width = int(np.clip(round(natural_width * model.max_stretch), 8, model.width_px))
    # INTER_AREA averages the pixels that merge; for enlarging it would be nearest neighbour.
    shrinks = height > model.height_px or width > used_width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(image, (used_width, model.height_px), interpolation=interpolation)
    if used_width < model.width_px:
        padding = model.width_px - used_width
        resized = cv2.copyMakeBorder(resized, 0, 0, 0, padding, cv2.BORDER_CONSTANT, value=(PAD_VALUE,) * 3)
    return resized, ResizeInfo(used_width / width, model.height_px / height, used_width)
