"""Decoding, resizing and augmentation: quads follow the pixels."""

import dataclasses

import cv2
import numpy as np
import pytest

from textscanner.data.images import PAD_VALUE, augment, decode, fit
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


def test_augmentation_moves_quads_with_pixels_and_is_deterministic():
    quads = np.array([[[27, 17], [33, 17], [33, 23], [27, 23]]], np.float32)
    moved, widths = 0, set()
    for seed in range(60):
        image = spot(40, 90, 30, 20)
        out, out_quads = augment(image, quads, np.random.default_rng(seed))
        again, _ = augment(image, None, np.random.default_rng(seed))
        np.testing.assert_array_equal(out, again)
        assert out.shape[0] == image.shape[0] and out.dtype == np.uint8
        widths.add(out.shape[1])
        gray = out.astype(np.float64).sum(2)
        weight = np.abs(gray - np.median(gray))
        weight[weight < 0.6 * weight.max()] = 0
        ys, xs = np.mgrid[:40, : out.shape[1]]
        centre = np.array([(weight * xs).sum(), (weight * ys).sum()]) / weight.sum() + 0.5
        np.testing.assert_allclose(centre, out_quads[0].mean(0), atol=2.5)
        moved += not np.array_equal(out_quads, quads)
    assert 20 < moved < 58
    assert min(widths) < 75 and max(widths) > 105


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8\xff\xe0 half a jpeg"])
def test_broken_image_is_named(data):
    with pytest.raises(UserError, match=r"word\.jpg"):
        decode(data, "word.jpg")
