"""Augmentation: quads follow the pixels, the same generator gives the same pixels, one knob scales everything."""

import dataclasses
import subprocess
import sys

import cv2
import numpy as np
import pytest

from textscanner.config import DataConfig
from textscanner.data import augmentation
from textscanner.data.augmentation import augment
from textscanner.data.images import fit
from textscanner.presets import preset

MODEL = preset("small").model


def dots(height, width, count=3):
    """White dots on black, 1/8 of the height wide (1/4 of the width in narrow images), and a quad around each."""
    radius = max(1, min(height // 16, width // 8))
    spread = 0.1 if width > height else 0.3
    image = np.zeros((height, width, 3), np.uint8)
    quads = np.empty((count, 4, 2), np.float32)
    for k in range(count):
        x, y = round(width * (k + 0.7) / (count + 0.4)), round(height * (0.5 + spread * (k % 3 - 1)))
        x = min(x, width - radius - min(height, width) // 8 - 1)  # light in the last block would be continued beyond it
        cv2.circle(image, (x, y), radius, (255, 255, 255), -1)
        x0, y0, x1, y1 = x - 2 * radius, y - 2 * radius, x + 2 * radius + 1, y + 2 * radius + 1
        quads[k] = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    return image, quads


def dot_centres(image, quads):
    """The centroid of the light inside each quad."""
    gray = image.astype(np.float64).mean(2)
    ys, xs = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    centres = []
    for quad in quads:
        inside = np.zeros(gray.shape, np.uint8)
        cv2.fillPoly(inside, [np.round(quad - 0.5).astype(np.int32)], 1)
        weight = np.where(inside, gray, 0)
        centres.append([(weight * xs).sum() / weight.sum(), (weight * ys).sum() / weight.sum()])
    return np.array(centres)


def box_mask(image, quad):
    """Which pixels lie inside the upright box of a quad: bool [H, W, 1]."""
    ys, xs = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    (x0, y0), (x1, y1) = quad[0], quad[2]
    return ((xs > x0) & (xs < x1) & (ys > y0) & (ys < y1))[..., None]


@pytest.mark.parametrize("size", [(32, 90), (48, 200), (96, 160), (210, 700)])
def test_quads_follow_the_pixels(size):
    """Of the geometry alone, for images lower and higher than the network's input."""
    image, quads = dots(*size)
    kinds = set()
    for seed in range(80):
        draws = augmentation._Draws(np.random.default_rng(seed))
        geometry = augmentation._random_geometry(size[0], size[1], MODEL, draws, strength=1.5)
        kinds.add((geometry.curve is not None, bool(geometry.matrix[2, :2].any())))
        warped = geometry.warp_image(image)
        moved = geometry.warp_points(quads)
        assert warped.shape == (MODEL.height_px, geometry.width_px, 3)
        whole = (moved.min((1, 2)) > 0.5) & (moved[..., 0].max(1) < warped.shape[1] - 0.5)
        whole &= moved[..., 1].max(1) < warped.shape[0] - 0.5
        np.testing.assert_allclose(dot_centres(warped, moved[whole]), moved[whole].mean(1), atol=0.5)
    assert len(kinds) == 4  # with and without curve, with and without perspective


@pytest.mark.parametrize("size", [(64, 8), (64, 10), (200, 30), (64, 64), (64, 2)])
@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_narrow_words_are_not_turned_inside_out(size, strength):
    """The word and boxes in it stay convex, in their orientation and of some size."""
    height, width = size
    x, y = np.meshgrid(np.linspace(0, width, 5), np.linspace(0, height, 5))
    grid = np.stack([x, y], -1)
    cells = np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]], -2).reshape(-1, 4, 2)
    word = np.array([[[0, 0], [width, 0], [width, height], [0, height]]])
    for seed in range(400):
        draws = augmentation._Draws(np.random.default_rng(seed))
        geometry = augmentation._random_geometry(height, width, MODEL, draws, strength)
        # A curve moves the middle of long edges: small boxes stay nearly straight.
        for quads in (word, cells):
            moved = geometry.warp_points(quads.astype(np.float32)).astype(np.float64)
            edges = np.roll(moved, -1, 1) - moved
            following = np.roll(edges, -1, 1)
            turns = edges[..., 0] * following[..., 1] - edges[..., 1] * following[..., 0]
            assert turns.min() > 0, seed
        whole = geometry.warp_points(word.astype(np.float32))[0]
        assert cv2.contourArea(whole) > 0.01 * geometry.width_px * geometry.height_px


@pytest.mark.parametrize("size", [(64, 8), (64, 10), (200, 30)])
@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_quads_follow_the_pixels_of_narrow_words(size, strength):
    """In a variant with enough rows to find the centres of small dots.

    Curves bend dots: a dot's centre is the mean of where its pixels go.
    """
    image, quads = dots(*size)
    lights = [np.where(box_mask(image, quad), image, 0) for quad in quads]
    model = dataclasses.replace(MODEL, height_px=128, width_px=512)
    num_compared = 0
    for seed in range(150):
        draws = augmentation._Draws(np.random.default_rng(seed))
        geometry = augmentation._random_geometry(size[0], size[1], model, draws, strength)
        right, bottom = geometry.width_px, geometry.height_px
        frame = np.array([[[0, 0], [right, 0], [right, bottom], [0, bottom]]], np.float32)
        moved = geometry.warp_points(quads)
        whole = (moved.min((1, 2)) > 1) & (moved < [right - 1, bottom - 1]).all((1, 2))
        for index in np.flatnonzero(whole):
            light_centre = dot_centres(geometry.warp_image(lights[index]), frame)[0]
            pixels = np.argwhere(lights[index][..., 0])[:, ::-1] + np.float32(0.5)
            np.testing.assert_allclose(light_centre, geometry.warp_points(pixels).mean(0), atol=0.8)
            num_compared += 1
    assert num_compared > 150


def test_wide_words_are_averaged_when_they_are_squeezed():
    """Stripes finer than a pixel of the variant become gray, as in the resizing without augmentation."""
    image = np.zeros((64, 1000, 3), np.uint8)
    image[:, ::2] = 255
    assert fit(image, MODEL)[0].std() < 10
    kinds = set()
    for seed in range(100):
        draws = augmentation._Draws(np.random.default_rng(seed))
        geometry = augmentation._random_geometry(64, 1000, MODEL, draws, strength=1.0)
        kinds.add((geometry.curve is not None, bool(geometry.matrix[2, :2].any())))
        assert geometry.warp_image(image).std() < 25
    assert len(kinds) == 4


def test_compression_keeps_the_order_of_channels():
    """JPEG keeps red better than blue: the weights of its brightness are 0.3 and 0.1."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    errors = []
    for channel in (0, 2):
        image = np.full((64, 64, 3), 128, np.uint8)
        image[..., channel] = noise
        compressed = augmentation._compress(image, 50)
        errors.append(np.abs(compressed[..., channel].astype(float) - noise).mean())
    assert errors[0] < 0.95 * errors[1]


def test_variants_of_all_effects_keep_dots_in_their_quads():
    """After colours, blur, noise and compression too."""
    image, quads = dots(96, 240)
    contrasts = []
    for seed in range(100):
        variant, moved = augment(image, quads, MODEL, np.random.default_rng(seed))
        gray = variant.astype(np.float64).mean(2)
        for x, y in moved.mean(1):
            if 1 <= y < gray.shape[0] - 1 and 1 <= x < gray.shape[1] - 1:
                contrasts.append(abs(gray[int(y), int(x)] - np.median(gray)))
    assert np.mean(np.array(contrasts) > 20) > 0.9


def test_same_generator_gives_the_same_pixels_with_and_without_quads():
    image, quads = dots(64, 150)
    for seed in range(40):
        variant, moved = augment(image, quads, MODEL, np.random.default_rng(seed))
        again, none = augment(image, None, MODEL, np.random.default_rng(seed))
        np.testing.assert_array_equal(variant, again)
        assert none is None and moved.shape == quads.shape
        assert variant.dtype == np.uint8 and variant.shape[0] == MODEL.height_px
        assert 8 <= variant.shape[1] <= MODEL.width_px
        assert variant.flags.c_contiguous


def test_strength_zero_only_scales():
    image = np.random.default_rng(0).integers(0, 255, (64, 150, 3), np.uint8)
    variant, quads = augment(image, np.ones((1, 4, 2), np.float32), MODEL, np.random.default_rng(1), strength=0.0)
    np.testing.assert_array_equal(variant, cv2.resize(image, (75, 32), interpolation=cv2.INTER_AREA))
    np.testing.assert_allclose(quads, 0.5)


def test_strength_scales_every_effect():
    """Rotation, margins, and how far pixels differ from the plain image."""
    image, quads = dots(64, 150)
    image[::4] //= 2
    plain = fit(image, MODEL)[0].astype(np.float64)
    turns, differences = [], []
    for strength in (0.3, 1.0, 2.0):
        angle, difference = [], []
        for seed in range(60):
            variant, moved = augment(image, quads, MODEL, np.random.default_rng(seed), strength)
            tops = moved[:, 1] - moved[:, 0]
            angle.append(np.abs(np.arctan2(tops[:, 1], tops[:, 0])).mean())
            difference.append(np.abs(fit(variant, MODEL)[0] - plain).mean())
        turns.append(np.mean(angle))
        differences.append(np.mean(difference))
    assert turns[0] < 0.5 * turns[1] and turns[1] < 0.8 * turns[2]
    assert differences[0] < 0.7 * differences[1] and differences[1] < differences[2]


def test_strength_is_checked():
    with pytest.raises(ValueError, match=r"data\.augment_strength is 3"):
        DataConfig(augment_strength=3.0)


def test_effects_are_as_strong_on_tall_crops_as_on_low_ones():
    """The same word from crops of 48 and 192 rows: the same share of its detail is lost."""
    lost = []
    for height in (48, 192):
        image, _ = dots(height, 3 * height, count=6)
        details = []
        for seed in range(150):
            variant, _ = augment(image, None, MODEL, np.random.default_rng(seed))
            details.append(cv2.Laplacian(variant, cv2.CV_64F).std())
        lost.append(np.mean(details))
    assert lost[0] == pytest.approx(lost[1], rel=0.12)


def test_long_words_turn_less():
    """At 15 degrees the box of a word ten times as wide as high would be four times as high."""
    model = dataclasses.replace(MODEL, width_px=512)
    for seed in range(60):
        geometry = augmentation._random_geometry(
            32, 320, model, augmentation._Draws(np.random.default_rng(seed)), strength=1.0
        )
        assert geometry.text_px > 0.33 * model.height_px


PEAK_MEMORY = """
import resource
import numpy as np
from textscanner.data.augmentation import augment
from textscanner.data.images import fit
from textscanner.presets import preset

model = preset("small").model
image = np.full((8192, 8192, 3), 200, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for seed in range(10):
    variant, _ = augment(image, np.zeros((5, 4, 2), np.float32), model, rng=np.random.default_rng(seed))
    fit(variant, model)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_an_image_of_the_largest_size_needs_little_memory_beyond_its_own_201_mb():
    """In a process of its own, whose peak is measured; ten variants have nearly every effect."""
    done = subprocess.run([sys.executable, "-c", PEAK_MEMORY], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 64  # MiB
