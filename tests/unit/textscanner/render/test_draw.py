"""Rendered words: deterministic per row, legible, with a quad per character and effects that can be disabled."""

import dataclasses

import cv2
import numpy as np
import pytest

from jobs.render import main as render_job
from tests.factories import settings
from tests.unit.textscanner.render.test_photographs import two_tone_photograph
from textscanner.data.images import decode
from textscanner.render.draw import EFFECTS, MIN_CONTRAST, contrast, render_word


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


@pytest.mark.parametrize(
    ("effect", "improves"),
    [("camera", sharpness), ("perspective", levelness), ("contrast", spread), ("crop", margin)],
)
def test_disabled_effect_has_no_trace(effect, improves):
    means = []
    for disabled in ((), (effect,)):
        style = dataclasses.replace(settings(), difficulty="real", disable=disabled)
        records = [render_word(style, row) for row in range(60)]
        means.append(np.mean([improves(decode(r.image, "x"), r.quads) for r in records]))
    assert means[1] > means[0] + 0.1 * abs(means[0])


def test_each_effect_can_be_disabled_by_name(capsys):
    full = dataclasses.replace(settings(), difficulty="real")
    drawn = [render_word(full, row).image for row in range(20)]
    for effect in EFFECTS:
        disabled = dataclasses.replace(full, disable=(effect,))
        assert [render_word(disabled, row).image for row in range(20)] != drawn, effect
    with pytest.raises(ValueError, match=r"glitter.*texture"):
        dataclasses.replace(full, disable=("glitter",))
    with pytest.raises(ValueError, match="easy has none"):
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
