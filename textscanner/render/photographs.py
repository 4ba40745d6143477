"""Backgrounds cut from the user's photographs: walls, leaves and cars behind the letters instead of paint."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np

from textscanner.data.image_files import IMAGE_SUFFIXES, is_image_name
from textscanner.data.images import decode
from textscanner.errors import UserError

MAX_SIDE_PX = 1024  # photographs are cached at this size; a word is 64 pixels high
CACHED_PHOTOGRAPHS = 128  # at most 3 MB each
CROP_FRACTION = (0.08, 0.8)  # of the largest crop with the word's aspect ratio


def find_photographs(folders: Sequence[str]) -> tuple[str, ...]:
    """The image files in the folders and their subfolders, sorted by path within each folder.

    Raises:
      UserError: a folder does not exist or contains no image.
    """
    photographs: list[str] = []
    for folder in folders:
        paths = sorted(str(p) for p in pathlib.Path(folder).rglob("*") if is_image_name(p.name))
        if not paths:
            raise UserError(f"backgrounds is {folder!r}: the folder contains no image ({', '.join(IMAGE_SUFFIXES)})")
        photographs += paths
    return tuple(photographs)


def random_crop(paths: Sequence[str], height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A random part of a random photograph, sometimes mirrored, brightened or dimmed.

    Returns:
      float32 [height, width, 3] in 0..255.

    Raises:
      UserError: the file is not an image.
    """
    photograph = _load(paths[int(rng.integers(len(paths)))])
    rows, columns = photograph.shape[:2]
    largest = min(rows / height, columns / width)
    scale = largest * rng.uniform(*CROP_FRACTION)
    h, w = max(2, int(height * scale)), max(2, int(width * scale))
    y, x = int(rng.integers(0, rows - h + 1)), int(rng.integers(0, columns - w + 1))
    crop = photograph[y : y + h, x : x + w]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    resized = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA if h > height else cv2.INTER_LINEAR)
    return np.asarray(np.clip(resized.astype(np.float32) * rng.uniform(0.5, 1.2) + rng.uniform(-20, 30), 0, 255))


@functools.lru_cache(maxsize=CACHED_PHOTOGRAPHS)
def _load(path: str) -> np.ndarray:
    image = decode(pathlib.Path(path).read_bytes(), path)
    scale = MAX_SIDE_PX / max(image.shape[:2])
    if scale < 1:
        image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    return image
