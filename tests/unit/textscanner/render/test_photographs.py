"""Photographic backgrounds."""

import cv2
import numpy as np
import pytest

from textscanner.errors import UserError
from textscanner.render.photographs import find_photographs, random_crop


def two_tone_photograph(folder):
    """A photograph of orange stripes in a subfolder."""
    photograph = np.zeros((200, 300, 3), np.uint8)
    photograph[:, ::2], photograph[:, 1::2] = (0, 90, 160), (20, 110, 180)
    (folder / "deep").mkdir()
    cv2.imwrite(str(folder / "deep" / "wall.png"), photograph)
    return find_photographs([str(folder)])


def test_crops_have_the_requested_size(tmp_path):
    crop = random_crop(two_tone_photograph(tmp_path), 32, 90, np.random.default_rng(0))
    assert crop.shape == (32, 90, 3) and crop.dtype == np.float32


def test_folder_without_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="contains no image"):
        find_photographs([str(tmp_path / "none")])
