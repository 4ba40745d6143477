"""Decoding, and resizing to the network's input."""

import dataclasses

import cv2
import numpy as np
import pytest

from textscanner.data.images import PAD_VALUE, decode, fit, is_vertical
from textscanner.errors import UserError
from textscanner.presets import preset


def spot(height, width, x, y):
    image = np.zeros((height, width, 3), np.uint8)
    cv2.circle(image, (x, y), 3, (255, 255, 255), -1)
    return image


def brightest(image):
    ys, xs = np.nonzero(image.sum(2) > 200)
    return xs.mean() + 0.5, ys.mean() + 0.5


@pytest.mark.parametrize(("resize", "width"), [("stretch", 60), ("pad", 60), ("pad", 600)])
def test_resize_info_maps_pixels(resize, width):
    model = dataclasses.replace(preset("small").model, resize=resize, max_stretch=1.0)
    fitted, info = fit(spot(40, width, width // 3, 25), model)
    assert fitted.shape == (32, 128, 3)
    x, y = brightest(fitted[:, : info.used_width_px])
    assert x == pytest.approx((width // 3 + 0.5) * info.scale_x, abs=1.5)
    assert y == pytest.approx(25.5 * info.scale_y, abs=1)
    if resize == "pad" and width == 60:
        assert info.used_width_px == 48 and (fitted[:, 48:] == PAD_VALUE).all()


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8\xff\xe0 half a jpeg"])
def test_broken_image_is_named(data):
    with pytest.raises(UserError, match=r"word\.jpg"):
        decode(data, "word.jpg")


@pytest.mark.parametrize(("height", "width", "vertical"), [(31, 20, True), (30, 20, False), (20, 31, False)])
def test_vertical_images_are_taller_than_wide(height, width, vertical):
    assert is_vertical(np.zeros((height, width, 3), np.uint8)) == vertical
