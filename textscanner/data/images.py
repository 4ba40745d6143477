"""Pixels on the CPU: decode, fit to the network's input, augment. Character quads move with them.

Images are uint8 RGB [H, W, 3] everywhere in the project. Augmentation draws from a generator that the caller
seeds with the row's place in the data's plan, so that a resumed run sees the same pixels.
"""

from __future__ import annotations

import dataclasses

import numpy as np

try:
    import cv2
except ImportError as error:  # libGL or libglib missing: usual in export_weights images
    raise ImportError(
        f"OpenCV cannot be loaded ({error}). On Debian or Ubuntu: apt-get install libgl1 libglib2.0-0; "
        "or, in the same environment: pip uninstall -y opencv-python && pip install opencv-python-headless"
    ) from error

from textscanner.config import ModelConfig

cv2.setNumThreads(1)  # parallelism comes from processes; threads of OpenCV's own would fight the trainer for cores

PAD_VALUE = 127


@dataclasses.dataclass(frozen=True)
class ResizeInfo:
    """How an image was fitted: input pixel = image pixel * scale, per axis; columns past
    `used_width_px` are padding."""

    scale_x: float
    scale_y: float
    used_width_px: int


def decode(data: bytes, what: str) -> np.ndarray:
    """The RGB image of encoded bytes, uint8 [H, W, 3].

    Raises:
      ValueError: `what` is not an image, or is truncated beyond what the decoder can read.
    """
    if not data:
        raise ValueError(f"{what}: empty image")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise ValueError(f"{what}: {error.err}") from None
    if image is None:
        raise ValueError(f"{what}: not an image that can be decoded")
    return image


def fit(image: np.ndarray, model: ModelConfig) -> tuple[np.ndarray, ResizeInfo]:
    """The image at the network's input size, uint8 [H, W, 3], and how it got there.

    `stretch` fills H x W (paper, section 4.2). `pad` keeps the ratio up to `max_stretch` and fills the right side.
    """
    height, width = image.shape[:2]
    used = model.width_px
    if model.resize == "pad":
        natural = width * model.height_px / height
        used = int(np.clip(round(natural * model.max_stretch), 8, model.width_px))
    shrinking = height > model.height_px or width > used
    resized = cv2.resize(
        image, (used, model.height_px), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    )
    if used < model.width_px:
        resized = cv2.copyMakeBorder(
            resized, 0, 0, 0, model.width_px - used, cv2.BORDER_CONSTANT, value=(PAD_VALUE,) * 3
        )
    return resized, ResizeInfo(used / width, model.height_px / height, used)


def augment(
    image: np.ndarray, quads: np.ndarray | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """A random variant of a word image, uint8, and its quads float32 [n, 4, 2] moved along (None stays None).

    Geometry first (letters wider or narrower, a crop margin that cuts or pads a little, a small rotation and shear),
    then colour inversion, brightness and contrast, a colour cast, low resolution, blur or sharpening, noise,
    compression; each with its own probability. The operations are those of PARSeq's and docTR's recipes.
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
    height, width = image.shape[:2]
    stretched = max(8, round(width * np.exp(rng.uniform(-0.4, 0.3))))
    resized = cv2.resize(image, (stretched, height), interpolation=cv2.INTER_AREA)
    return resized, None if quads is None else quads * np.array([stretched / width, 1.0], np.float32)


def _warp(
    image: np.ndarray, quads: np.ndarray | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
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
        flat = np.ascontiguousarray(quads.reshape(-1, 1, 2), dtype=np.float32)
        quads = cv2.perspectiveTransform(flat, matrix).reshape(quads.shape)
    return warped, quads


def _recolour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    gain = np.exp(rng.uniform(-1.0, 0.4)) * rng.uniform(0.85, 1.15, 3)
    table = np.clip(np.arange(256)[:, None] * gain + rng.uniform(-40, 40), 0, 255).astype(np.uint8)
    return cv2.LUT(image, np.ascontiguousarray(table[None]))


def _coarsen(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    rows = int(rng.uniform(10, 24))
    if rows >= height:
        return image
    small = cv2.resize(image, (max(4, round(width * rows / height)), rows), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def _compress(image: np.ndarray, quality: int) -> np.ndarray:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def _blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    sigma = rng.uniform(0.3, 1.5)
    blurred = cv2.GaussianBlur(image, (0, 0), sigma)
    if rng.random() < 0.3:
        return cv2.addWeighted(image, 1.8, blurred, -0.8, 0)
    return blurred
