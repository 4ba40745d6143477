"""Backgrounds cut from photographs that the user has: walls, leaves and cars behind the letters, not only paint."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np

from textscanner.data.images import decode

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
LONGEST_PX = 1024  # photographs are kept at this size; a word is 64 pixels high
CACHED = 128
SHARE_CUT = (0.08, 0.8)  # of the photograph's height or width


def find_photographs(folders: Sequence[str]) -> tuple[str, ...]:
    """The image files below the folders, in order of path.

    Raises:
      ValueError: a folder does not exist or holds no image.
    """
    found: list[str] = []
    for name in folders:
        paths = sorted(str(p) for p in pathlib.Path(name).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not paths:
            raise ValueError(f"--backgrounds {name}: no image there ({', '.join(SUFFIXES)})")
        found += paths
    return tuple(found)


def cut(paths: Sequence[str], height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A random part of a random photograph, float32 [H, W, 3] in 0..255, sometimes mirrored, brightened or dimmed.

    Raises:
      ValueError: the file is not an image.
    """
    photograph = _opened(paths[int(rng.integers(len(paths)))])
    rows, columns = photograph.shape[:2]
    largest = min(rows / height, columns / width)
    scale = largest * rng.uniform(*SHARE_CUT)
    h, w = max(2, int(height * scale)), max(2, int(width * scale))
    y, x = int(rng.integers(0, rows - h + 1)), int(rng.integers(0, columns - w + 1))
    part = photograph[y : y + h, x : x + w]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    resized = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA if h > height else cv2.INTER_LINEAR)
    return np.clip(resized.astype(np.float32) * rng.uniform(0.5, 1.2) + rng.uniform(-20, 30), 0, 255)


@functools.lru_cache(maxsize=CACHED)
def _opened(path: str) -> np.ndarray:
    image = decode(pathlib.Path(path).read_bytes(), path)
    factor = LONGEST_PX / max(image.shape[:2])
    return image if factor >= 1 else cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
