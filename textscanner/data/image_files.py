"""Which files are images, by their suffix. Imports nothing, because commands list the suffixes in their help."""

from __future__ import annotations

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


def is_image_name(name: str) -> bool:
    """Whether a file of this name is an image that OpenCV reads; upper or lower case."""
    return name.lower().endswith(IMAGE_SUFFIXES)
