"""Surfaces that words are written on, and camera effects: backgrounds, fills, degradations."""

from __future__ import annotations

import cv2
import numpy as np

from textscanner.data.augmentation import motion_kernel


def colour(rng: np.random.Generator) -> np.ndarray:
    """A random colour, float32 [3] in 0..255: greys, the colours of signs, and any colour."""
    kind = rng.random()
    if kind < 0.45:
        return np.full(3, rng.uniform(0, 255), np.float32) + rng.normal(0, 8, 3).astype(np.float32)
    if kind < 0.93:  # low saturations are more frequent: streets are less colourful than a colour wheel
        hsv = np.array([[[rng.uniform(0, 180), 240 * rng.beta(1.1, 1.8), rng.uniform(40, 255)]]], np.uint8)
        return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32))
    return rng.uniform(0, 255, 3).astype(np.float32)


def luminance(rgb: np.ndarray) -> float:
    """Rec. 601 luma of a colour, 0..255."""
    return float(np.dot(rgb, (0.299, 0.587, 0.114)))


def ink_against(paper: np.ndarray, contrast: float, rng: np.random.Generator) -> np.ndarray:
    """A random colour whose luma differs from that of `paper` by at least `contrast`, float32 [3].

    Falls back to nearly black or nearly white.
    """
    for _ in range(8):
        ink = colour(rng)
        if abs(luminance(ink) - luminance(paper)) >= contrast:
            return ink
    return np.full(3, 15.0 if luminance(paper) > 127 else 240.0, np.float32)


def background(height: int, width: int, paper: np.ndarray, rng: np.random.Generator, rough: bool) -> np.ndarray:
    """A surface of about the colour `paper`, float32 [height, width, 3].

    Args:
      height: rows.
      width: columns.
      paper: float32 [3] in 0..255.
      rng: source of randomness.
      rough: with texture, stripes and panels; otherwise plain or with a gradient.
    """
    image: np.ndarray = np.broadcast_to(paper, (height, width, 3)).astype(np.float32)
    kind = rng.random()
    if kind < 0.45:
        image = image + _gradient(height, width, rng)[..., None] * rng.uniform(-50, 50, 3).astype(np.float32)
    if not rough:
        return image
    if kind > 0.3:
        cells = int(rng.integers(2, 12))
        strength = rng.uniform(4, 38)
        image = image + _smooth_noise(height, width, cells, rng)[..., None] * np.float32(strength)
    if rng.random() < 0.2:
        image = image + _smooth_noise(height, width, 40, rng)[..., None] * np.float32(rng.uniform(4, 22))
    if rng.random() < 0.14:
        image = _stripes(image, rng)
    if rng.random() < 0.22:
        image = _patches(image, rng)
    return image


def _gradient(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A linear ramp in a random direction, float32 [height, width] in about -1..1."""
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-1, 1, width, dtype=np.float32)[None] * np.cos(angle)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.sin(angle)
    return np.asarray(x + y, np.float32)


def _smooth_noise(height: int, width: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise with `cells` cells along the height, float32 [height, width] in about -1..1."""
    columns = max(2, round(cells * width / height))
    small = rng.uniform(-1, 1, (cells, columns)).astype(np.float32)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))


def _stripes(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    period, angle = rng.uniform(4, 40), rng.uniform(0, np.pi)
    x = np.arange(width, dtype=np.float32)[None] * np.cos(angle)
    y = np.arange(height, dtype=np.float32)[:, None] * np.sin(angle)
    wave = np.sign(np.sin((x + y) * (2 * np.pi / period))).astype(np.float32)
    return np.asarray(image + wave[..., None] * rng.uniform(-30, 30, 3).astype(np.float32))


def _patches(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds borders, panels and lines in other colours, as at the edges of signs."""
    height, width = image.shape[:2]
    image = np.ascontiguousarray(image)
    for _ in range(int(rng.integers(1, 4))):
        tone = tuple(float(v) for v in colour(rng))
        if rng.random() < 0.5:
            thickness = int(rng.integers(1, 6))
            p = rng.uniform(-0.1, 1.1, (2, 2)) * (width, height)
            if rng.random() < 0.6:  # parallel to the crop's upper or lower edge
                edge = rng.choice([rng.uniform(0, 0.14), rng.uniform(0.86, 1.0)]) * height
                p = np.array([[0, edge + rng.normal(0, 2)], [width, edge + rng.normal(0, 2)]])
            cv2.line(image, tuple(map(int, p[0])), tuple(map(int, p[1])), tone, thickness, cv2.LINE_AA)
        else:
            side = rng.integers(4)
            depth = int(rng.uniform(0.03, 0.16) * height)
            y, x = (slice(0, depth), slice(None)) if side == 0 else (slice(height - depth, None), slice(None))
            if side >= 2:
                y, x = slice(None), (slice(0, depth) if side == 2 else slice(width - depth, None))
            image[y, x] = tone
    return image


def degrade(image: np.ndarray, rng: np.random.Generator, hard: bool) -> np.ndarray:
    """Simulates a camera: glare, dim light, low resolution, defocus, motion blur, noise.

    Args:
      image: uint8 [H, W, 3].
      rng: source of randomness.
      hard: the full range of effects; otherwise only mild ones.

    Returns:
      uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    if hard and rng.random() < 0.1:  # glare
        glare = np.clip(_smooth_noise(height, width, 2, rng), 0, 1)[..., None] * rng.uniform(30, 110)
        image = np.clip(image + glare, 0, 255).astype(np.uint8)
    if hard and rng.random() < 0.15:  # dim light
        image = cv2.convertScaleAbs(image, alpha=rng.uniform(0.2, 0.7))
    if rng.random() < (0.5 if hard else 0.2):
        rows = int(rng.uniform(10, 36) if hard else rng.uniform(24, 48))
        small = cv2.resize(image, (max(4, round(width * rows / height)), rows), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (width, height), interpolation=int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC])))
    kind = rng.random()
    if kind < 0.25:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 2.2 if hard else 1.0))
    elif kind < 0.33 and hard:
        image = cv2.filter2D(image, -1, motion_kernel(int(rng.integers(3, 8)), rng.uniform(0, np.pi)))
    if rng.random() < 0.4:
        sigma = rng.uniform(1, 16 if hard else 6)
        noise = rng.standard_normal((height, width, 1 if rng.random() < 0.5 else 3), np.float32) * np.float32(sigma)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return image
