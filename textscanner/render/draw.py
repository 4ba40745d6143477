"""One word from a row number: text, font, layout, look, camera; with the quad of every character.

Everything random comes from a generator seeded with (seed, row), so that a row is the same whoever draws it. The quads
are the ink boxes pushed through the same bend and the same perspective as the pixels. After drawing, the contrast
between ink and its surroundings is measured in the final pixels; a word that could not be read is drawn again.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, get_args

import cv2
import numpy as np

from textscanner.data.schema import WordRecord
from textscanner.render.fonts import Font, covers
from textscanner.render.glyph_layout import Layout, bend, lay_out
from textscanner.render.photographs import cut
from textscanner.render.surface import background, colour, degrade, ink_against
from textscanner.render.word_source import draw_text

MIN_CONTRAST = 8.0  # of ink against its rim in the final pixels
ATTEMPTS = 12
MAX_ASPECT = 9.0
PHOTOGRAPHED = 0.5  # share of words on a photograph, where there are any

Effect = Literal["texture", "perspective", "crop", "neighbours", "depth", "contrast", "camera"]
EFFECTS: tuple[Effect, ...] = get_args(Effect)
"""What makes a word `real`; each can be left out to see what it teaches (docs/accuracy.md): uneven surfaces and fills;
tilted, leaning and bent words; tight crops; parts of other words; shadows, rims and hollow letters; ink that hardly
stands out from its surface; low resolution, blur, noise, shine, dusk and compression."""


@dataclasses.dataclass(frozen=True)
class RenderSettings:
    """What is drawn.

    Attributes:
      split: `train`, `heldout` or `all`, of words and of font families.
      difficulty: `easy` is clean print, `real` tries to be the street.
      fonts: faces to draw from.
      words: a file with a word a line instead of the dictionary.
      photographs: image files that half of the backgrounds are cut from; none for painted ones only.
      without: effects of `real` that stay as mild as `easy` has them.
    """

    seed: int
    fonts: tuple[Font, ...]
    height_px: int = 64
    difficulty: Literal["easy", "real"] = "real"
    split: Literal["train", "heldout", "all"] = "train"
    words: str | None = None
    photographs: tuple[str, ...] = ()
    without: tuple[Effect, ...] = ()

    def has(self, effect: Effect) -> bool:
        """Whether words are drawn with the full range of that effect."""
        return self.difficulty == "real" and effect not in self.without

    @functools.cached_property
    def families(self) -> tuple[tuple[Font, ...], ...]:
        """The faces by family: families are drawn evenly, however many weights they come in."""
        groups: dict[str, list[Font]] = {}
        for font in self.fonts:
            groups.setdefault(font.family, []).append(font)
        return tuple(tuple(group) for group in groups.values())

    def draw_font(self, rng: np.random.Generator) -> Font:
        """A face of a random family."""
        faces = self.families[rng.integers(len(self.families))]
        return faces[rng.integers(len(faces))]

    def __post_init__(self) -> None:
        if not 16 <= self.height_px <= 256:
            raise ValueError(f"--height-px is {self.height_px}: must lie in 16..256")
        if self.difficulty not in ("easy", "real"):
            raise ValueError(f"--difficulty is {self.difficulty!r}: easy or real")
        for effect in self.without:
            if effect not in EFFECTS:
                raise ValueError(f"--disable names {effect!r}: there are {', '.join(EFFECTS)}")
            if self.difficulty == "easy":
                raise ValueError(f"--disable names {effect!r}: --difficulty easy has none; drop one of the two")


def render_word(settings: RenderSettings, row: int) -> WordRecord:
    """The row's word as a JPEG with its quads.

    Raises:
      ValueError: no font covers the texts that the settings ask for.
    """
    rng = np.random.default_rng((settings.seed, row))
    for _ in range(ATTEMPTS):
        drawn = _attempt(settings, rng)
        if drawn is not None:
            image, quads, text, font = drawn
            quality = int(rng.integers(30, 96) if settings.has("camera") else rng.integers(70, 96))
            data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
            return WordRecord(data, text, quads, f"rendered:{font.family} {font.style}")
    raise ValueError(f"row {row} could not be drawn in {ATTEMPTS} attempts: no font covers the words asked for")


def _attempt(settings: RenderSettings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, str, Font] | None:
    font = settings.draw_font(rng)
    text = draw_text(rng, settings.split, settings.words, plain=settings.difficulty == "easy")
    if not covers(font.path, text):
        return None
    layout = _layout(settings, font, text, rng)
    matrix, width = _project(settings, layout, rng)
    size = (width, settings.height_px)
    mask = cv2.warpPerspective(layout.mask, matrix, size, flags=cv2.INTER_LINEAR)
    quads = cv2.perspectiveTransform(layout.quads.reshape(-1, 1, 2), matrix).reshape(-1, 4, 2)
    others = None
    if settings.has("neighbours") and rng.random() < 0.35:
        others = _neighbours(settings, font, matrix, layout, size, rng)
    image = degrade(_compose(settings, mask, others, rng), rng, settings.has("camera"))
    if contrast(image, mask) < MIN_CONTRAST:
        return None
    return image, quads, text, font


def contrast(image: np.ndarray, mask: np.ndarray) -> float:
    """Mean luma distance between ink and the rim around it, less half the rim's spread, in the final pixels, 0..255."""
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    ink = (mask > 150).astype(np.uint8)
    rim = cv2.dilate((mask > 40).astype(np.uint8), np.ones((7, 7), np.uint8)) - (mask > 40)
    if not ink.any() or not rim.any():
        return 0.0
    mean, spread = cv2.meanStdDev(luma, mask=rim)
    return max(0.0, abs(cv2.mean(luma, ink)[0] - float(mean[0, 0])) - 0.5 * float(spread[0, 0]))


def _layout(settings: RenderSettings, font: Font, text: str, rng: np.random.Generator) -> Layout:
    hard = settings.difficulty == "real"
    kind = rng.random()
    spacing = rng.normal(0.02, 0.03) if kind < 0.7 else rng.uniform(0.0, 0.30 if kind < 0.95 or not hard else 1.0)
    stretch = float(np.exp(rng.normal(0, 0.22 if hard else 0.08)))
    layout = lay_out(font.path, text, max(spacing, -0.05), stretch)
    if len(text) < 3 or not settings.has("perspective") or rng.random() > 0.14:
        return layout
    return bend(layout, float(rng.uniform(-0.14, 0.14)))


def _project(settings: RenderSettings, layout: Layout, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """The perspective from layout to image pixels, and the image's width."""
    height_px, hard = settings.height_px, settings.has("perspective")
    x0, y0, x1, y1 = layout.ink
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)
    slight = not hard or rng.random() < 0.8
    tilt = np.deg2rad(rng.normal(0, 3.5 if hard else 1.2) if slight else rng.uniform(-28, 28))
    shear = rng.normal(0, 0.10 if hard else 0.04)
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]) @ np.array([[1, shear], [0, 1]])
    placed = (corners - corners.mean(0)) @ turn.T
    lean = 0.10 if hard else 0.02
    placed += rng.uniform(-lean, lean, (4, 2)) * (min(x1 - x0, 2 * (y1 - y0)), y1 - y0)
    low, high = placed.min(0), placed.max(0)
    ink_height = high[1] - low[1]
    # Tight crops and loose ones: the margins as shares of the ink's height; a little of the ink may be cut off.
    kind = rng.random()
    if settings.has("crop") and kind < 0.2:
        margin = rng.uniform(-0.09, 0.08, 4)
    else:
        margin = rng.uniform(-0.03, 0.30, 4) if kind < 0.8 else rng.uniform(0.1, 0.7, 4)
    top, bottom, left, right = margin * ink_height
    scale = height_px / (ink_height + top + bottom)
    width = (high[0] - low[0] + left + right) * scale
    target = ((placed - low + (left, top)) * scale).astype(np.float32)
    if width > MAX_ASPECT * height_px:
        target[:, 0] *= MAX_ASPECT * height_px / width
        width = MAX_ASPECT * height_px
    return cv2.getPerspectiveTransform(corners, target), max(12, round(width))


def _neighbours(
    settings: RenderSettings,
    font: Font,
    matrix: np.ndarray,
    layout: Layout,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> np.ndarray | None:
    """Parts of other words that reach into the crop from above, below, left or right: coverage uint8 [H, W].

    Mostly in the word's own font: a line goes on.
    """
    font = font if rng.random() < 0.7 else settings.draw_font(rng)
    text = draw_text(rng, settings.split, None, plain=True)
    other = lay_out(font.path, text, 0.02, 1.0) if covers(font.path, text) else None
    if other is None:
        return None
    x0, y0, x1, y1 = layout.ink
    a0, b0, a1, b1 = other.ink
    gap = rng.uniform(0.06, 0.3) * (y1 - y0)
    side = rng.integers(4)
    along = rng.uniform(x0 - (a1 - a0) * 0.7, x1 - (a1 - a0) * 0.3)
    shift = (
        (along - a0, y0 - gap - b1),
        (along - a0, y1 + gap - b0),
        (x0 - gap - a1, y1 - b1),
        (x1 + gap - a0, y1 - b1),
    )[side]
    moved = matrix @ np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]], np.float64)
    return cv2.warpPerspective(other.mask, moved, size, flags=cv2.INTER_LINEAR)


def _compose(
    settings: RenderSettings, mask: np.ndarray, others: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """The word and its neighbours on a surface, uint8 [H, W, 3]."""
    height, width = mask.shape
    rough = settings.has("texture")
    if settings.photographs and rng.random() < PHOTOGRAPHED:
        image = cut(settings.photographs, height, width, rng)
        paper = image.mean((0, 1))
    else:
        paper = colour(rng)
        image = background(height, width, paper, rng, rough)
    ink = ink_against(paper, rng.uniform(18, 110) if settings.has("contrast") else 90, rng)
    if others is not None:
        _paint(image, others, ink if rng.random() < 0.8 else ink_against(paper, 40, rng))
    effect = rng.random() if settings.has("depth") else rng.uniform(0.3, 1)
    if effect < 0.13:  # a shadow behind the letters, or their depth
        _paint(
            image,
            _shadow(mask, rng),
            paper * rng.uniform(0.1, 0.6) if rng.random() < 0.7 else ink_against(ink, 30, rng),
        )
    elif effect < 0.20:  # a rim
        radius = int(rng.integers(1, 4))
        rim = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2))
        _paint(image, rim, ink_against(ink, 50, rng))
    elif effect < 0.24:  # hollow letters
        hollow = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        _paint(image, hollow, ink)
        return np.clip(image, 0, 255).astype(np.uint8)
    fill: np.ndarray = ink
    if rough and rng.random() < 0.25:
        fill = background(height, width, ink, rng, rough=True)
    _paint(image, mask, fill, rng.uniform(0.75, 1.0) if settings.has("contrast") else 1.0)
    return np.clip(image, 0, 255).astype(np.uint8)


def _shadow(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = mask.shape
    depth = rng.integers(1, 6, 2) * rng.choice([-1, 1], 2)
    extruded = rng.random() < 0.5
    steps = range(1, int(np.abs(depth).max()) + 1) if extruded else (1,)
    shadow = np.zeros_like(mask)
    for step in steps:
        x, y = depth * (step / len(steps))
        moved = cv2.warpAffine(mask, np.array([[1, 0, x], [0, 1, y]], np.float32), (width, height))
        shadow = np.maximum(shadow, moved)
    return shadow if extruded else cv2.GaussianBlur(shadow, (0, 0), rng.uniform(0.3, 2.5))


def _paint(image: np.ndarray, mask: np.ndarray, fill: np.ndarray, opacity: float = 1.0) -> None:
    """Blends `fill` (a colour or an image) into `image` under `mask`, in place."""
    alpha = (mask.astype(np.float32) * (opacity / 255.0))[..., None]
    image += alpha * (fill - image)
