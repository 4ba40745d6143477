"""Drawn words: the quads hold the ink, the same seed gives the same bytes; pixels and quads move together."""

import dataclasses
import pathlib

import cv2
import numpy as np
import pytest

from jobs.render import main as render_job
from tests.factories import settings
from textscanner.data.images import PAD_VALUE, augment, decode, fit
from textscanner.presets import preset
from textscanner.render.draw import EFFECTS, MIN_CONTRAST, contrast, render_word
from textscanner.render.fonts import Font, covers, find_fonts, in_heldout_words, select
from textscanner.render.glyph_layout import bend, lay_out
from textscanner.render.photographs import cut, find_photographs
from textscanner.render.word_source import words


@pytest.mark.parametrize("difficulty", ["easy", "real"])
def test_a_row_is_the_same_whoever_draws_it(difficulty):
    style = dataclasses.replace(settings(), difficulty=difficulty)
    again = dataclasses.replace(style)
    order = [7, 3, 5]
    drawn = {row: render_word(style, row) for row in order}
    for row in reversed(order):
        other = render_word(again, row)
        assert (drawn[row].image, drawn[row].text) == (other.image, other.text)
        np.testing.assert_array_equal(drawn[row].quads, other.quads)
    assert len({record.image for record in drawn.values()}) == 3


@pytest.mark.parametrize("sag", [0.0, 0.12, -0.12])
def test_quads_hold_the_ink_and_nothing_else_does(sag):
    path = settings().fonts[0].path
    layout = lay_out(path, "Hoax7", spacing=0.1, stretch=1.3)
    layout = bend(layout, sag) if sag else layout
    inside = np.zeros_like(layout.mask)
    grown = layout.quads + np.array([[-2, -2], [2, -2], [2, 2], [-2, 2]], np.float32)
    for quad in grown:
        cv2.fillPoly(inside, [np.round(quad).astype(np.int32)], 1)
    ink = layout.mask > 64
    assert (ink & (inside > 0)).sum() > 0.97 * ink.sum()
    for quad in layout.quads:
        (x0, y0), (x1, y1) = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
        assert ink[y0:y1, x0:x1].any()


def test_every_character_has_its_quad_and_contrast():
    style = dataclasses.replace(settings(), difficulty="real")
    for row in range(40):
        record = render_word(style, row)
        assert record.quads.shape == (len(record.text), 4, 2)
        assert decode(record.image, "x").shape[0] == style.height_px


def test_words_stand_on_photographs_where_there_are_any(tmp_path):
    """A photograph in two tones that no painted surface has: they come through in half of the words."""
    photograph = np.zeros((200, 300, 3), np.uint8)
    photograph[:, ::2], photograph[:, 1::2] = (0, 90, 160), (20, 110, 180)
    (tmp_path / "deep").mkdir()
    cv2.imwrite(str(tmp_path / "deep" / "wall.png"), photograph)
    paths = find_photographs([str(tmp_path)])
    patch = cut(paths, 32, 90, np.random.default_rng(0))
    assert patch.shape == (32, 90, 3) and patch.dtype == np.float32
    style = dataclasses.replace(settings(), difficulty="real", photographs=paths)
    means = [decode(render_word(style, row).image, "x").reshape(-1, 3).astype(float).mean(0) for row in range(40)]
    orange = sum(red > green + 15 and green > blue + 15 for red, green, blue in means)
    assert 8 <= orange <= 32
    assert render_word(style, 3).image == render_word(dataclasses.replace(style), 3).image
    with pytest.raises(ValueError, match="no image there"):
        find_photographs([str(tmp_path / "none")])


def sharpness(image, quads):
    return cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_32F).std()


def tilt(image, quads):
    ways = quads[:, 1] - quads[:, 0]
    return -np.abs(np.arctan2(ways[:, 1], ways[:, 0])).mean()


def spread(image, quads):
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float).std()


def room(image, quads):
    return min(quads.min() / len(image), (len(image) - quads[..., 1].max()) / len(image), 0.0)


@pytest.mark.parametrize(
    ("effect", "improves"),
    [("camera", sharpness), ("perspective", tilt), ("contrast", spread), ("crop", room)],
)
def test_an_effect_left_out_is_not_seen(effect, improves):
    means = []
    for without in ((), (effect,)):
        style = dataclasses.replace(settings(), difficulty="real", without=without)
        records = [render_word(style, row) for row in range(60)]
        means.append(np.mean([improves(decode(r.image, "x"), r.quads) for r in records]))
    assert means[1] > means[0] + 0.1 * abs(means[0])


def test_each_effect_can_be_left_out_by_name(capsys):
    full = dataclasses.replace(settings(), difficulty="real")
    drawn = [render_word(full, row).image for row in range(20)]
    for effect in EFFECTS:
        less = dataclasses.replace(full, without=(effect,))
        assert [render_word(less, row).image for row in range(20)] != drawn, effect
    with pytest.raises(ValueError, match=r"glitter.*texture"):
        dataclasses.replace(full, without=("glitter",))
    with pytest.raises(ValueError, match="easy has none"):
        dataclasses.replace(full, without=("camera",), difficulty="easy")
    with pytest.raises(SystemExit):
        render_job(["--help"])
    assert ", ".join(EFFECTS) in " ".join(capsys.readouterr().out.split())


def test_contrast_sees_what_cannot_be_read():
    mask = np.zeros((32, 64), np.uint8)
    mask[8:24, 10:16] = 255
    flat = np.full((32, 64, 3), 100, np.uint8)
    assert contrast(flat, mask) < 1
    flat[mask > 0] = 100 + 2 * int(MIN_CONTRAST)
    assert contrast(flat, mask) == pytest.approx(2 * MIN_CONTRAST, abs=1)


def test_words_and_fonts_held_out_are_not_trained_on():
    train, heldout = set(words("train")[0]), set(words("heldout")[0])
    assert train and heldout and not train & heldout
    assert in_heldout_words("Word") == in_heldout_words("WORD")
    fonts = find_fonts()
    families = [{f.family for f in select(fonts, split)} for split in ("train", "heldout")]
    assert families[0] and families[1] and not families[0] & families[1]


def test_unusable_fonts_are_passed_over(tmp_path):
    good = settings().fonts[0].path
    data = pathlib.Path(good).read_bytes()
    (tmp_path / "copy.ttf").write_bytes(data)
    (tmp_path / "copy2.ttf").write_bytes(data)
    (tmp_path / "broken.ttf").write_bytes(data[:1000])
    found = find_fonts((str(tmp_path),), packages=())
    assert len([f for f in found if f.path.startswith(str(tmp_path))]) == 1
    assert not any("cmex" in f.path or "cmsy" in f.path for f in find_fonts(packages=("matplotlib",)))
    assert covers(good, "abc") and not covers(good, "\U0001f9ff")
    with pytest.raises(ValueError, match="no such folder"):
        find_fonts((str(tmp_path / "none"),))
    with pytest.raises(ValueError, match="no font family"):
        select([Font("x", "DejaVu Sans", "")], "heldout" if not Font("x", "DejaVu Sans", "").heldout else "train")


def spot(height, width, x, y):
    image = np.zeros((height, width, 3), np.uint8)
    cv2.circle(image, (x, y), 3, (255, 255, 255), -1)
    return image


def brightest(image):
    ys, xs = np.nonzero(image.sum(2) > 200)
    return xs.mean() + 0.5, ys.mean() + 0.5


@pytest.mark.parametrize(("resize", "width"), [("stretch", 60), ("pad", 60), ("pad", 600)])
def test_fit_says_where_a_pixel_went(resize, width):
    model = dataclasses.replace(preset("small").model, resize=resize, max_stretch=1.0)
    fitted, how = fit(spot(40, width, width // 3, 25), model)
    assert fitted.shape == (32, 128, 3)
    x, y = brightest(fitted[:, : how.used_width_px])
    assert x == pytest.approx((width // 3 + 0.5) * how.scale_x, abs=1.5)
    assert y == pytest.approx(25.5 * how.scale_y, abs=1)
    if resize == "pad" and width == 60:
        assert how.used_width_px == 48 and (fitted[:, 48:] == PAD_VALUE).all()


def test_augmentation_moves_quads_with_pixels_and_repeats():
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
def test_broken_images_are_named(data):
    with pytest.raises(ValueError, match=r"word\.jpg"):
        decode(data, "word.jpg")
