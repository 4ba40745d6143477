"""Image operations on the CPU: decode, resize to the network's input, augment. Character quads follow the pixels.

Images are uint8 RGB [H, W, 3] everywhere in the project. Augmentation draws from a generator that the caller seeds
with the row's position in the training order, so that a resumed run sees the same pixels.
"""

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
from textscanner.errors import UserError

cv2.setNumThreads(1)  # parallelism comes from processes; OpenCV's own threads would compete with training for cores

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""File names that end like this, in lower case, count as images."""
PAD_VALUE = 127


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
      data: the bytes of a JPEG, PNG or any other format that OpenCV reads.
      source: name for error messages.

    Returns:
      uint8 RGB [H, W, 3].

    Raises:
      UserError: `data` is not an image, or is truncated beyond what the decoder can read.
    """
    if not data:
        raise UserError(f"{source}: the file is empty; give an image")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise UserError(f"{source}: {error.err}") from None
    if image is None:
        raise UserError(f"{source}: not an image that OpenCV can decode")
    return np.asarray(image)


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


def augment(
    image: np.ndarray, quads: np.ndarray | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """A random variant of a word image.

    Geometry first (letters wider or narrower; a small rotation, shear and shift of the crop), then colour inversion,
    brightness and contrast, a colour cast, low resolution, blur or sharpening, noise and JPEG compression; each with
    its own probability. The operations are those of PARSeq's and docTR's recipes.

    Args:
      image: uint8 [H, W, 3].
      quads: float32 [n, 4, 2] in pixels of the image, or None.
      rng: generator of the row. The same state gives the same pixels, with quads or without.

    Returns:
      The variant, uint8 [H, W', 3], and the quads in its pixels (None stays None).
    """
    if rng.random() < 0.5:
        image, quads = _stretch(image, quads, rng)
    if rng.random() < 0.5:
        image, quads = _warp(image, quads, rng)
    if rng.random() < 0.3:
        image = 255 - image
    if rng.random() < 0.5:
        image = _recolour(image, rng)
    if rng.random() < 0.15:
        image = _coarsen(image, rng)
    if rng.random() < 0.2:
        image = _blur(image, rng)
    if rng.random() < 0.2:
        noise = rng.normal(0.0, rng.uniform(3.0, 15.0), image.shape)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.1:
        image = _compress(image, int(rng.integers(15, 60)))
    return np.ascontiguousarray(image), quads


def _stretch(
    image: np.ndarray, quads: np.ndarray | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """Makes letters wider or narrower: [H, W, 3] -> [H, W', 3]."""
    height, width = image.shape[:2]
    stretched_width = max(8, round(width * np.exp(rng.uniform(-0.4, 0.3))))
    resized = cv2.resize(image, (stretched_width, height), interpolation=cv2.INTER_AREA)
    return resized, None if quads is None else quads * np.array([stretched_width / width, 1.0], np.float32)


def _warp(
    image: np.ndarray, quads: np.ndarray | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """Rotates the word and moves the corners of its crop, in one perspective: [H, W, 3] -> [H, W, 3]."""
    height, width = image.shape[:2]
    source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    shift = rng.uniform(-0.08, 0.08, (4, 2)) * height
    angle = np.deg2rad(rng.normal(0.0, 3.0))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = source.mean(0)
    target = ((source - centre) @ rotation.T + centre + shift).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(source, target)
    warped = cv2.warpPerspective(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    if quads is not None:
        points = np.ascontiguousarray(quads.reshape(-1, 1, 2), dtype=np.float32)
        quads = cv2.perspectiveTransform(points, matrix).reshape(quads.shape)
    return warped, quads


def _recolour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    gain = np.exp(rng.uniform(-1.0, 0.4)) * rng.uniform(0.85, 1.15, 3)
    table = np.clip(np.arange(256)[:, None] * gain + rng.uniform(-40, 40), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, np.ascontiguousarray(table[None])))


def _coarsen(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scales down to 10 to 24 rows and back."""
    height, width = image.shape[:2]
    rows = int(rng.uniform(10, 24))
    if rows >= height:
        return image
    small = cv2.resize(image, (max(4, round(width * rows / height)), rows), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))


def _compress(image: np.ndarray, quality: int) -> np.ndarray:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


def _blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blurs, or in 30 % of the calls sharpens."""
    blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.5))
    if rng.random() < 0.3:
        return np.asarray(cv2.addWeighted(image, 1.8, blurred, -0.8, 0))
    return np.asarray(blurred)
