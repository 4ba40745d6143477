"""Renders one word per row number: text, font, layout, surface and camera, with the quad of every character.

All randomness comes from a generator seeded with (seed, row): a row is the same whichever process renders it. The quads
are the ink boxes of the glyphs, transformed by the same arc and the same perspective as the pixels. After rendering,
the contrast between the ink and its surroundings is measured in the final pixels; an illegible word is drawn again.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple, get_args

import cv2
import numpy as np

from textscanner.data.schema import WordRecord
from textscanner.errors import UserError
from textscanner.render.fonts import Font, covers
from textscanner.render.glyph_layout import GlyphLayout, bend, lay_out, lay_out_on_arc
from textscanner.render.options import DEFAULT_DIFFICULTY, DEFAULT_SPLIT, EFFECTS, Difficulty, Effect, Split
from textscanner.render.photographs import random_crop
from textscanner.render.surface import background, colour, degrade, ink_against
from textscanner.render.word_source import draw_text

MIN_CONTRAST = 8.0  # between the ink and its surroundings, see `contrast`
MIN_LETTER_HEIGHT = 0.18  # of the image's height: smaller letters, as of long words on arcs, are not legible
MAX_ATTEMPTS = 12
MAX_ASPECT, MAX_ASPECT_LONG = 9.0, 14.0  # width / height, without and with long texts; wider words are squeezed
PHOTOGRAPH_PROBABILITY = 0.5  # of a photographic background, if there are photographs
ARC_PROBABILITY, BEND_PROBABILITY, SPACING_PROBABILITY, SCRIPT_PROBABILITY = 0.09, 0.07, 0.10, 0.08
SHADOW_PROBABILITY, EXTRUSION_PROBABILITY, OUTLINE_PROBABILITY = 0.10, 0.07, 0.12


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderSettings:
    """What is rendered.

    Attributes:
      seed: seed of all rows.
      fonts: faces to choose from.
      height_px: height of the images, 16 to 256.
      difficulty: `easy` is clean print, `real` imitates photographs of streets.
      split: `train`, `heldout` or `all`; applies to words.
      words: a text file with one word per line; None takes dictionary words.
      backgrounds: image files from which half of the backgrounds are cut; empty for painted backgrounds only.
      disable: effects of `real` that stay as mild as in `easy`.
    """

    seed: int
    fonts: tuple[Font, ...]
    height_px: int = 64
    difficulty: Difficulty = DEFAULT_DIFFICULTY
    split: Split = DEFAULT_SPLIT
    words: str | None = None
    backgrounds: tuple[str, ...] = ()
    disable: tuple[Effect, ...] = ()

    def __post_init__(self) -> None:
        if not 16 <= self.height_px <= 256:
            raise UserError(f"height_px is {self.height_px}: must lie in 16..256")
        if self.difficulty not in get_args(Difficulty):
            raise UserError(f"difficulty is {self.difficulty!r}: must be one of {', '.join(get_args(Difficulty))}")
        for effect in self.disable:
            if effect not in EFFECTS:
                raise UserError(f"disable names {effect!r}: must be among {', '.join(EFFECTS)}")
            if self.difficulty == "easy":
                raise UserError(f"disable names {effect!r}: difficulty easy has no effects; remove one of them")

    def enables(self, effect: Effect) -> bool:
        """Whether words are rendered with the full range of an effect."""
        return self.difficulty == "real" and effect not in self.disable

    @functools.cached_property
    def families(self) -> tuple[tuple[Font, ...], ...]:
        """Faces grouped by family: every family is equally likely, however many faces it has."""
        groups: dict[str, list[Font]] = {}
        for font in self.fonts:
            groups.setdefault(font.family, []).append(font)
        return tuple(tuple(group) for group in groups.values())

    @functools.cached_property
    def script_families(self) -> tuple[tuple[Font, ...], ...]:
        """The families whose letters join."""
        return tuple(family for family in self.families if all(font.is_script for font in family))

    def draw_font(self, rng: np.random.Generator) -> Font:
        """A random face of a random family; script gets at least its share, however few families of it there are."""
        families = self.families
        if self.enables("script") and self.script_families and rng.random() < SCRIPT_PROBABILITY:
            families = self.script_families
        faces = families[rng.integers(len(families))]
        return faces[rng.integers(len(faces))]


def render_word(settings: RenderSettings, row: int) -> WordRecord:
    """Renders the word of a row as a JPEG with character quads.

    Raises:
      UserError: no font covers the texts of the settings.
    """
    rng = np.random.default_rng((settings.seed, row))
    for _ in range(MAX_ATTEMPTS):
        word = _attempt(settings, rng)
        if word is not None:
            quality = int(rng.integers(30, 96) if settings.enables("camera") else rng.integers(70, 96))
            jpeg = cv2.imencode(".jpg", word.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
            return WordRecord(jpeg, word.text, word.quads, f"rendered:{word.font.family} {word.font.style}")
    raise UserError(
        f"words is {settings.words or 'the dictionary'!r}: row {row} failed {MAX_ATTEMPTS} times, "
        "the fonts do not cover the words; add fonts or change the words"
    )


class _RenderedWord(NamedTuple):
    """`image` uint8 [H, W, 3], `quads` float32 [n, 4, 2] in its pixels."""

    image: np.ndarray
    quads: np.ndarray
    text: str
    font: Font


def _attempt(settings: RenderSettings, rng: np.random.Generator) -> _RenderedWord | None:
    """One random word; None if the font lacks a character or the word is illegible."""
    font = settings.draw_font(rng)
    plain = settings.difficulty == "easy"
    text = draw_text(rng, split=settings.split, file=settings.words, plain=plain, long=settings.enables("long"))
    if not covers(font.path, text):
        return None
    layout = _layout(settings, font, text, rng)
    matrix, width = _project(settings, layout, rng)
    size = (width, settings.height_px)
    mask = cv2.warpPerspective(layout.mask, matrix, size, flags=cv2.INTER_LINEAR)
    quads = cv2.perspectiveTransform(layout.quads.reshape(-1, 1, 2), matrix).reshape(-1, 4, 2)
    letters_px = np.linalg.norm(quads[:, 3] - quads[:, 0], axis=1)
    if letters_px.max() < MIN_LETTER_HEIGHT * settings.height_px:
        return None
    neighbours = None
    if settings.enables("neighbours") and rng.random() < 0.35:
        neighbour = _neighbour(settings, font, layout, rng)
        neighbours = None if neighbour is None else cv2.warpPerspective(neighbour.mask, matrix @ neighbour.shift, size)
    image, visible = _compose(settings, mask, neighbours, letter_px=float(np.median(letters_px)), rng=rng)
    image = degrade(image, rng, settings.enables("camera"))
    if contrast(image, visible) < MIN_CONTRAST:
        return None
    return _RenderedWord(image, quads, text, font)


def contrast(image: np.ndarray, mask: np.ndarray) -> float:
    """Legibility: how far the luma of the ink differs from that of its surroundings.

    Args:
      image: uint8 [H, W, 3].
      mask: uint8 [H, W], coverage of the ink.

    Returns:
      The distance of the mean lumas of ink and surrounding rim, less half the rim's standard deviation, 0..255.
    """
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    ink = (mask > 150).astype(np.uint8)
    rim = cv2.dilate((mask > 40).astype(np.uint8), np.ones((7, 7), np.uint8)) - (mask > 40)
    if not ink.any() or not rim.any():
        return 0.0
    mean, deviation = cv2.meanStdDev(luma, mask=rim)
    return max(0.0, abs(cv2.mean(luma, ink)[0] - float(mean[0, 0])) - 0.5 * float(deviation[0, 0]))


def _layout(settings: RenderSettings, font: Font, text: str, rng: np.random.Generator) -> GlyphLayout:
    """The word with random letter spacing and stretch: straight, on an arc or bent."""
    hard = settings.difficulty == "real"
    kind = rng.random()
    spacing = max(-0.05, rng.normal(0.02, 0.03) if kind < 0.7 else rng.uniform(0.0, 0.30))
    stretch = float(np.exp(rng.normal(0, 0.22 if hard else 0.08)))
    if hard and font.is_script:
        spacing = 0.0  # the letters join
    elif settings.enables("spacing") and rng.random() < SPACING_PROBABILITY:
        # Long words are not spaced so widely that squeezing them into the image would make their letters thin.
        spacing = max(spacing, min(rng.uniform(0.3, 1.6), 9 / len(text) - 0.6))
    if len(text) < 3 or not settings.enables("arc"):
        return lay_out(font.path, text, spacing=spacing, stretch=stretch)
    kind = rng.random()
    if kind < ARC_PROBABILITY:
        degrees = rng.uniform(20, 180) * (1 if rng.random() < 0.65 else -1)  # arches are more frequent
        return lay_out_on_arc(font.path, text, angle=np.deg2rad(degrees), spacing=spacing, stretch=stretch)
    layout = lay_out(font.path, text, spacing=spacing, stretch=stretch)
    return bend(layout, float(rng.uniform(-0.14, 0.14))) if kind < ARC_PROBABILITY + BEND_PROBABILITY else layout


def _project(settings: RenderSettings, layout: GlyphLayout, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A random camera: the 3 x 3 perspective from layout to image pixels, and the image's width in pixels."""
    height_px, hard = settings.height_px, settings.enables("perspective")
    x0, y0, x1, y1 = layout.ink_box
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)
    slight = not hard or rng.random() < 0.8
    angle = np.deg2rad(rng.normal(0, 3.5 if hard else 1.2) if slight else rng.uniform(-28, 28))
    shear = rng.normal(0, 0.10 if hard else 0.04)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.array(
        [[1, shear], [0, 1]]
    )
    moved = (corners - corners.mean(0)) @ rotation.T
    jitter = 0.10 if hard else 0.02
    moved += rng.uniform(-jitter, jitter, (4, 2)) * (min(x1 - x0, 2 * (y1 - y0)), y1 - y0)
    low, high = moved.min(0), moved.max(0)
    ink_height = high[1] - low[1]
    # Margins of the crop as fractions of the ink's height; negative ones cut off a little ink.
    kind = rng.random()
    if settings.enables("crop") and kind < 0.2:
        margin = rng.uniform(-0.09, 0.08, 4)
    else:
        margin = rng.uniform(-0.03, 0.30, 4) if kind < 0.8 else rng.uniform(0.1, 0.7, 4)
    top, bottom, left, right = margin * ink_height
    scale = height_px / (ink_height + top + bottom)
    width = (high[0] - low[0] + left + right) * scale
    target = ((moved - low + (left, top)) * scale).astype(np.float32)
    max_width = (MAX_ASPECT_LONG if settings.enables("long") else MAX_ASPECT) * height_px
    if width > max_width:
        target[:, 0] *= max_width / width
        width = max_width
    return cv2.getPerspectiveTransform(corners, target), max(12, round(width))


class _Neighbour(NamedTuple):
    """`mask` uint8 [h, w]; `shift` is the 3 x 3 translation from its pixels to the layout of the word."""

    mask: np.ndarray
    shift: np.ndarray


def _neighbour(
    settings: RenderSettings, font: Font, layout: GlyphLayout, rng: np.random.Generator
) -> _Neighbour | None:
    """Another word above, below, left or right of the word, of which a part may reach into the crop.

    In most cases in the same font, as in a line or paragraph. None if the font does not cover the other word.
    """
    font = font if rng.random() < 0.7 else settings.draw_font(rng)
    text = draw_text(rng, split=settings.split, plain=True)
    if not covers(font.path, text):
        return None
    other = lay_out(font.path, text, spacing=0.02)
    x0, y0, x1, y1 = layout.ink_box
    a0, b0, a1, b1 = other.ink_box
    gap = rng.uniform(0.06, 0.3) * (y1 - y0)
    side = rng.integers(4)
    along = rng.uniform(x0 - (a1 - a0) * 0.7, x1 - (a1 - a0) * 0.3)
    x, y = (
        (along - a0, y0 - gap - b1),
        (along - a0, y1 + gap - b0),
        (x0 - gap - a1, y1 - b1),
        (x1 + gap - a0, y1 - b1),
    )[side]
    return _Neighbour(other.mask, np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64))


def _compose(
    settings: RenderSettings,
    mask: np.ndarray,
    neighbours: np.ndarray | None,
    letter_px: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Paints a word and its neighbours on a surface.

    Args:
      settings: which effects are enabled.
      mask: uint8 [H, W], coverage of the word.
      neighbours: uint8 [H, W], coverage of other words, or None.
      letter_px: height of a letter.
      rng: source of randomness.

    Returns:
      uint8 [H, W, 3], and the coverage of what shows the letters: all of them or their outlines, uint8 [H, W].
    """
    height, width = mask.shape
    rough = settings.enables("texture")
    if settings.backgrounds and rng.random() < PHOTOGRAPH_PROBABILITY:
        image = random_crop(settings.backgrounds, height, width, rng)
        paper = image.mean((0, 1))
    else:
        paper = colour(rng)
        image = background(height, width, paper, rng, rough)
    ink = ink_against(paper, rng.uniform(18, 110) if settings.enables("contrast") else 90, rng)
    if neighbours is not None:
        _paint(image, neighbours, ink if rng.random() < 0.8 else ink_against(paper, 40, rng))
    kind = rng.random()
    if kind < SHADOW_PROBABILITY:
        if settings.enables("shadow"):
            dark = paper * rng.uniform(0.1, 0.6) if rng.random() < 0.7 else ink_against(ink, 30, rng)
            _paint(image, _shadow(mask, letter_px, rng), dark)
    elif kind < SHADOW_PROBABILITY + EXTRUSION_PROBABILITY:
        if settings.enables("extrusion"):
            _extrude(image, mask, ink, letter_px=letter_px, rng=rng)
    elif kind < SHADOW_PROBABILITY + EXTRUSION_PROBABILITY + OUTLINE_PROBABILITY and settings.enables("outline"):
        stroke_px = max(1, round(letter_px * rng.uniform(0.02, 0.08)))
        if rng.random() < 0.35:
            return _hollow(image, mask, ink, stroke_px=stroke_px, rng=rng)
        if rng.random() < 0.3:  # a second rim
            _paint(image, _grow(mask, 2 * stroke_px), ink if rng.random() < 0.5 else ink_against(paper, 30, rng))
        _paint(image, _grow(mask, stroke_px), ink_against(ink, 50, rng))
    fill: np.ndarray = ink
    if rough and rng.random() < 0.25:
        fill = background(height, width, ink, rng, rough=True)
    _paint(image, mask, fill, rng.uniform(0.75, 1.0) if settings.enables("contrast") else 1.0)
    return _to_uint8(image), mask


def _hollow(
    image: np.ndarray, mask: np.ndarray, ink: np.ndarray, stroke_px: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paints only the outlines of the letters, on or around their edges; what is inside is the surface, or tinted."""
    inner = mask if rng.random() < 0.5 else cv2.erode(mask, _disc(max(1, stroke_px // 2)))
    stroke = cv2.subtract(_grow(mask, stroke_px), inner)
    if rng.random() < 0.3:
        _paint(image, mask, colour(rng), rng.uniform(0.1, 0.4))
    _paint(image, stroke, ink)
    return _to_uint8(image), np.asarray(stroke)


def _extrude(image: np.ndarray, mask: np.ndarray, ink: np.ndarray, letter_px: float, rng: np.random.Generator) -> None:
    """Paints the sides of letters that stand out of the surface, in place: from the far end to the front."""
    height, width = mask.shape
    depth_px = letter_px * rng.uniform(0.08, 0.35)
    direction = rng.uniform(0.15 * np.pi, 0.85 * np.pi) if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi)
    shrinkage = rng.uniform(0.0, 0.12) if rng.random() < 0.4 else 0.0  # sides that run to a vanishing point
    near = ink * rng.uniform(0.25, 0.7) if ink.mean() > 70 else ink_against(ink, 40, rng)
    far = near * rng.uniform(0.5, 1.0)
    num_steps = max(2, round(depth_px))
    for step in range(num_steps, 0, -1):
        part = step / num_steps
        scale = 1 - shrinkage * part
        x = depth_px * part * np.cos(direction) + (1 - scale) * width / 2
        y = depth_px * part * np.sin(direction) + (1 - scale) * height / 2
        moved = cv2.warpAffine(mask, np.array([[scale, 0, x], [0, scale, y]], np.float32), (width, height))
        _paint(image, moved, near + (far - near) * part)
    if rng.random() < 0.3:  # an edge around the front
        _paint(image, _grow(mask, 1), ink_against(ink, 40, rng))


def _disc(radius: int) -> np.ndarray:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)))


def _grow(mask: np.ndarray, radius: int) -> np.ndarray:
    return np.asarray(cv2.dilate(mask, _disc(radius)))


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(image, 0, 255).astype(np.uint8))


def _shadow(mask: np.ndarray, letter_px: float, rng: np.random.Generator) -> np.ndarray:
    """The mask moved a little and blurred: uint8 [H, W] in and out."""
    height, width = mask.shape
    x, y = rng.uniform(0.03, 0.14, 2) * rng.choice([-1, 1], 2) * letter_px
    moved = cv2.warpAffine(mask, np.array([[1, 0, x], [0, 1, y]], np.float32), (width, height))
    return np.asarray(cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.01, 0.06) * letter_px + 0.3))


def _paint(image: np.ndarray, mask: np.ndarray, fill: np.ndarray, opacity: float = 1.0) -> None:
    """Blends `fill` into an image under a mask, in place.

    Args:
      image: float32 [H, W, 3].
      mask: uint8 [H, W], coverage.
      fill: a colour [3] or an image [H, W, 3].
      opacity: 0 to 1.
    """
    alpha = (mask.astype(np.float32) * (opacity / 255.0))[..., None]
    image += alpha * (fill - image)
