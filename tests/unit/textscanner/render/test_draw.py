"""Rendered words: deterministic per row, legible, with a quad per character and effects that can be disabled."""

import dataclasses

import cv2
import numpy as np
import pytest

from jobs.render import main as render_job
from tests.factories import settings
from tests.unit.textscanner.render.test_photographs import two_tone_photograph
from textscanner.data.images import decode
from textscanner.render import draw
from textscanner.render.draw import MIN_CONTRAST, MIN_LETTER_HEIGHT, contrast, render_word
from textscanner.render.glyph_layout import lay_out
from textscanner.render.options import EFFECTS


def with_script():
    """The street, in fonts of which one counts as script."""
    fonts = tuple(dataclasses.replace(font, is_script=font.family.endswith("Serif")) for font in settings().fonts)
    return dataclasses.replace(settings(), difficulty="real", fonts=fonts)


@pytest.mark.parametrize("difficulty", ["easy", "real"])
def test_row_is_deterministic(difficulty):
    style = dataclasses.replace(settings(), difficulty=difficulty)
    again = dataclasses.replace(style)
    order = [7, 3, 5]
    drawn = {row: render_word(style, row) for row in order}
    for row in reversed(order):
        other = render_word(again, row)
        assert (drawn[row].image, drawn[row].text) == (other.image, other.text)
        np.testing.assert_array_equal(drawn[row].quads, other.quads)
    assert len({record.image for record in drawn.values()}) == 3


def test_every_character_has_a_quad():
    style = dataclasses.replace(settings(), difficulty="real")
    for row in range(40):
        record = render_word(style, row)
        assert record.quads.shape == (len(record.text), 4, 2)
        assert decode(record.image, "x").shape[0] == style.height_px


def test_half_of_the_words_have_photographic_backgrounds(tmp_path):
    """The photograph has two tones that no painted surface has."""
    style = dataclasses.replace(settings(), difficulty="real", backgrounds=two_tone_photograph(tmp_path))
    means = [decode(render_word(style, row).image, "x").reshape(-1, 3).astype(float).mean(0) for row in range(40)]
    orange = sum(red > green + 15 and green > blue + 15 for red, green, blue in means)
    assert 8 <= orange <= 32
    assert render_word(style, 3).image == render_word(dataclasses.replace(style), 3).image


def sharpness(image, quads):
    return cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_32F).std()


def levelness(image, quads):
    tops = quads[:, 1] - quads[:, 0]
    return -np.abs(np.arctan2(tops[:, 1], tops[:, 0])).mean()


def spread(image, quads):
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float).std()


def margin(image, quads):
    return min(quads.min() / len(image), (len(image) - quads[..., 1].max()) / len(image), 0.0)


def straightness(image, quads):
    """The letters turn alike."""
    tops = quads[:, 1] - quads[:, 0]
    return -np.arctan2(tops[:, 1], tops[:, 0]).std()


@pytest.mark.parametrize(
    ("effect", "improves"),
    [
        ("camera", sharpness),
        ("perspective", levelness),
        ("contrast", spread),
        ("crop", margin),
        ("arc", straightness),
    ],
)
def test_disabled_effect_has_no_trace(effect, improves):
    means = []
    for disabled in ((), (effect,)):
        style = dataclasses.replace(settings(), difficulty="real", disable=disabled)
        records = [render_word(style, row) for row in range(90)]
        means.append(np.mean([improves(decode(r.image, "x"), r.quads) for r in records]))
    assert means[1] > means[0] + 0.1 * abs(means[0])


def is_wide_set(quads):
    """Letters are further apart than twice their width."""
    distances = np.linalg.norm(np.diff(quads.mean(1), axis=0), axis=1)
    return len(quads) > 1 and np.mean(distances) > 2 * np.linalg.norm(quads[:, 1] - quads[:, 0], axis=1).mean()


def is_long(quads):
    return len(quads) >= 12


@pytest.mark.parametrize(("effect", "shows"), [("spacing", is_wide_set), ("long", is_long)])
def test_rare_effect_has_its_share(effect, shows):
    shares = []
    for disabled in ((effect,), ()):
        style = dataclasses.replace(settings(), difficulty="real", disable=disabled)
        shares.append(np.mean([shows(render_word(style, row).quads) for row in range(200)]))
    assert shares[1] > shares[0] + 0.03


def test_each_effect_can_be_disabled_by_name(capsys):
    full = with_script()
    drawn = [render_word(full, row).image for row in range(60)]
    for effect in EFFECTS:
        disabled = dataclasses.replace(full, disable=(effect,))
        assert any(render_word(disabled, row).image != image for row, image in enumerate(drawn)), effect
    with pytest.raises(ValueError, match=r"glitter.*texture"):
        dataclasses.replace(full, disable=("glitter",))
    with pytest.raises(ValueError, match="easy has no effects"):
        dataclasses.replace(full, disable=("camera",), difficulty="easy")
    with pytest.raises(SystemExit):
        render_job(["--help"])
    assert ", ".join(EFFECTS) in " ".join(capsys.readouterr().out.split())


def test_contrast_measures_ink_against_its_surroundings():
    mask = np.zeros((32, 64), np.uint8)
    mask[8:24, 10:16] = 255
    flat = np.full((32, 64, 3), 100, np.uint8)
    assert contrast(flat, mask) < 1
    flat[mask > 0] = 100 + 2 * int(MIN_CONTRAST)
    assert contrast(flat, mask) == pytest.approx(2 * MIN_CONTRAST, abs=1)


def test_script_has_more_than_the_share_of_its_families():
    sources = []
    for style in (with_script(), dataclasses.replace(with_script(), disable=("script",))):
        rng = np.random.default_rng(0)
        sources.append(np.mean([style.draw_font(rng).is_script for _ in range(4000)]))
    assert sources[1] == pytest.approx(0.25, abs=0.03)
    assert sources[0] == pytest.approx(0.25 + 0.75 * draw.SCRIPT_PROBABILITY, abs=0.03)


def test_letters_are_high_enough_to_be_read():
    style = dataclasses.replace(settings(), difficulty="real")
    for row in range(60):
        quads = render_word(style, row).quads
        heights = np.linalg.norm(quads[:, 3] - quads[:, 0], axis=1)
        assert heights.max() >= MIN_LETTER_HEIGHT * style.height_px - 1e-3


def letters():
    """The coverage of a word, uint8 [H, W], and a grey surface of its size."""
    mask = lay_out(settings().fonts[0].path, "HOX").mask
    return mask, np.full((*mask.shape, 3), 120, np.float32)


def test_hollow_letters_show_the_surface_inside():
    mask, surface = letters()
    inside = cv2.erode(mask, np.ones((5, 5), np.uint8)) > 200
    shown = []
    for seed in range(20):
        image, visible = draw._hollow(surface.copy(), mask, np.zeros(3), 2, np.random.default_rng(seed))
        assert image[visible > 250].max() < 10
        assert visible[inside].max() == 0
        assert contrast(image, visible) > 50
        shown.append((image[inside] == 120).all())
    assert 8 < sum(shown) < 20  # tinted otherwise


def test_extrusion_and_shadow_stay_near_the_letters():
    """They reach out by at most their depth, and the extrusion begins at the letters."""
    mask, surface = letters()
    letter_px = 48.0
    near = cv2.dilate(mask, np.ones((61, 61), np.uint8)) > 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        image = surface.copy()
        draw._extrude(image, mask, np.full(3, 200.0), letter_px, rng)
        changed = np.abs(image - surface).max(2) > 1
        assert changed.any() and not changed[~near].any()
        touching = cv2.dilate(mask, np.ones((3, 3), np.uint8)) > 0
        assert changed[touching].any()
        shadow = draw._shadow(mask, letter_px, rng)
        assert shadow.max() > 60 and shadow[~near].max(initial=0) < 3
