"""Renders one word per row number: text, font, layout, surface and camera, with the quad of every character.

All randomness comes from a generator seeded with (seed, row): a row is the same whichever process renders it. The quads
are the ink boxes of the glyphs, transformed by the same bend and the same perspective as the pixels. After rendering,
the contrast between the ink and its surroundings is measured in the final pixels; an illegible word is drawn again.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np

from textscanner.data.schema import WordRecord
from textscanner.errors import UserError
from textscanner.render.fonts import Font, covers
from textscanner.render.glyph_layout import GlyphLayout, bend, lay_out
from textscanner.render.photographs import random_crop
from textscanner.render.surface import background, colour, degrade, ink_against
from textscanner.render.word_source import draw_text

MIN_CONTRAST = 8.0  # between the ink and its surroundings, see `contrast`
MAX_ATTEMPTS = 12
MAX_ASPECT = 9.0  # width / height; wider words are squeezed
PHOTOGRAPH_PROBABILITY = 0.5  # of a photographic background, if there are photographs

Difficulty = Literal["easy", "real"]
Split = Literal["train", "heldout", "all"]
Effect = Literal["texture", "perspective", "crop", "neighbours", "depth", "contrast", "camera"]
EFFECTS: tuple[Effect, ...] = get_args(Effect)
"""Effects of `real`; each can be disabled to measure what it contributes (docs/accuracy.md): uneven surfaces and fills;
rotated, sheared and bent words; tight crops; parts of other words; shadows, rims and hollow letters; ink with little
contrast to its surface; low resolution, blur, noise, glare, dim light and compression."""


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
    difficulty: Difficulty = "real"
    split: Split = "train"
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
                raise UserError(f"disable names {effect!r}: difficulty easy has none of the effects; drop either")

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

    def draw_font(self, rng: np.random.Generator) -> Font:
        """A random face of a random family."""
        faces = self.families[rng.integers(len(self.families))]
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
    text = draw_text(rng, split=settings.split, file=settings.words, plain=settings.difficulty == "easy")
    if not covers(font.path, text):
        return None
    layout = _layout(settings, font, text, rng)
    matrix, width = _project(settings, layout, rng)
    size = (width, settings.height_px)
    mask = cv2.warpPerspective(layout.mask, matrix, size, flags=cv2.INTER_LINEAR)
    quads = cv2.perspectiveTransform(layout.quads.reshape(-1, 1, 2), matrix).reshape(-1, 4, 2)
    neighbours = None
    if settings.enables("neighbours") and rng.random() < 0.35:
        neighbour = _neighbour(settings, font, layout, rng)
        neighbours = None if neighbour is None else cv2.warpPerspective(neighbour.mask, matrix @ neighbour.shift, size)
    image = degrade(_compose(settings, mask, neighbours, rng), rng, settings.enables("camera"))
    if contrast(image, mask) < MIN_CONTRAST:
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
    """The word with random letter spacing and stretch, in some cases bent."""
    hard = settings.difficulty == "real"
    kind = rng.random()
    spacing = rng.normal(0.02, 0.03) if kind < 0.7 else rng.uniform(0.0, 0.30 if kind < 0.95 or not hard else 1.0)
    stretch = float(np.exp(rng.normal(0, 0.22 if hard else 0.08)))
    layout = lay_out(font.path, text, spacing=max(spacing, -0.05), stretch=stretch)
    if len(text) < 3 or not settings.enables("perspective") or rng.random() > 0.14:
        return layout
    return bend(layout, float(rng.uniform(-0.14, 0.14)))


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
    if width > MAX_ASPECT * height_px:
        target[:, 0] *= MAX_ASPECT * height_px / width
        width = MAX_ASPECT * height_px
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
    settings: RenderSettings, mask: np.ndarray, neighbours: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """Paints a word and its neighbours on a surface.

    Args:
      settings: which effects are enabled.
      mask: uint8 [H, W], coverage of the word.
      neighbours: uint8 [H, W], coverage of other words, or None.
      rng: source of randomness.

    Returns:
      uint8 [H, W, 3].
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
    effect = rng.random() if settings.enables("depth") else rng.uniform(0.3, 1)
    if effect < 0.13:  # a shadow or a third dimension
        shadow = _shadow(mask, rng)
        _paint(image, shadow, paper * rng.uniform(0.1, 0.6) if rng.random() < 0.7 else ink_against(ink, 30, rng))
    elif effect < 0.20:  # a rim
        radius = int(rng.integers(1, 4))
        rim = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2))
        _paint(image, rim, ink_against(ink, 50, rng))
    elif effect < 0.24:  # hollow letters
        hollow = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        _paint(image, hollow, ink)
        return _to_uint8(image)
    fill: np.ndarray = ink
    if rough and rng.random() < 0.25:
        fill = background(height, width, ink, rng, rough=True)
    _paint(image, mask, fill, rng.uniform(0.75, 1.0) if settings.enables("contrast") else 1.0)
    return _to_uint8(image)


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(image, 0, 255).astype(np.uint8))


def _shadow(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mask moved by a few pixels, blurred or extruded: uint8 [H, W] in and out."""
    height, width = mask.shape
    offset = rng.integers(1, 6, 2) * rng.choice([-1, 1], 2)
    extruded = rng.random() < 0.5
    steps = range(1, int(np.abs(offset).max()) + 1) if extruded else (1,)
    shadow = np.zeros_like(mask)
    for step in steps:
        x, y = offset * (step / len(steps))
        moved = cv2.warpAffine(mask, np.array([[1, 0, x], [0, 1, y]], np.float32), (width, height))
        shadow = np.maximum(shadow, moved)
    return shadow if extruded else np.asarray(cv2.GaussianBlur(shadow, (0, 0), rng.uniform(0.3, 2.5)))


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
