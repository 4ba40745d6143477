"""Lays out the glyphs of a word: a coverage mask and the exact ink box of every character, in layout pixels."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from textscanner.render.fonts import GLYPH_PX, Glyph, glyph

MARGIN_PX = 12  # empty border around the ink


@dataclasses.dataclass(frozen=True, eq=False)
class GlyphLayout:
    """A word laid out.

    Attributes:
      mask: uint8 [H, W], coverage.
      quads: float32 [n, 4, 2], TL TR BR BL of each character's ink, x y in the mask's pixels.
    """

    mask: np.ndarray
    quads: np.ndarray

    @property
    def ink_box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of all ink."""
        low, high = self.quads.min((0, 1)), self.quads.max((0, 1))
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def lay_out(path: str, text: str, *, spacing: float = 0.0, stretch: float = 1.0) -> GlyphLayout:
    """Lays out a word on a straight line.

    Args:
      path: a font that covers the text.
      text: at least one character.
      spacing: extra space between characters, as a fraction of the em size; may be slightly negative.
      stretch: horizontal scale.
    """
    glyphs, left = _set_line(path, text, spacing)
    top = min(g.top_px for g in glyphs)
    bottom = max(g.top_px + g.coverage.shape[0] for g in glyphs)
    shift = MARGIN_PX - min(left)
    width = shift + max(x + g.coverage.shape[1] for x, g in zip(left, glyphs, strict=True)) + MARGIN_PX
    mask = np.zeros((bottom - top + 2 * MARGIN_PX, width), np.uint8)
    quads = np.empty((len(text), 4, 2), np.float32)
    for k, (x, g) in enumerate(zip(left, glyphs, strict=True)):
        x0, y0 = x + shift, g.top_px - top + MARGIN_PX
        _add(mask, g.coverage, x0, y0)
        quads[k] = _box(x0, y0, *g.coverage.shape)
    if stretch != 1.0:
        stretched_width = max(2, round(width * stretch))
        mask = cv2.resize(mask, (stretched_width, mask.shape[0]), interpolation=cv2.INTER_LINEAR)
        quads[..., 0] *= stretched_width / width
    return GlyphLayout(mask, quads)


def lay_out_on_arc(path: str, text: str, *, angle: float, spacing: float = 0.0, stretch: float = 1.0) -> GlyphLayout:
    """Lays out a word on an arc of a circle. Letters turn with the arc and keep their shapes.

    Args:
      path: a font that covers the text.
      text: at least one character.
      angle: how far the last letter is turned against the first, in radians. Positive: the middle of the word is its
        highest part; negative: its lowest. Limited so that the radius is no less than the height of the word.
      spacing: extra space between characters, as a fraction of the em size.
      stretch: horizontal scale of the letters.
    """
    glyphs, left = _set_line(path, text, spacing)
    ascent = -min(g.top_px for g in glyphs)
    first, last = min(left), max(x + g.coverage.shape[1] for x, g in zip(left, glyphs, strict=True))
    length, middle = (last - first) * stretch, (first + last) / 2
    height = max(1, ascent + max(g.top_px + g.coverage.shape[0] for g in glyphs))
    radius = max(length / max(abs(angle), 1e-3), float(height))
    # Letters keep their distance where they are closest: at the baseline of an arch, at the top of a hanging word.
    baseline_radius = radius if angle > 0 else -(radius + max(ascent, 0))
    quads, transforms = np.empty((len(text), 4, 2), np.float32), []
    for k, (x, g) in enumerate(zip(left, glyphs, strict=True)):
        centre = x + g.coverage.shape[1] / 2
        turn = (centre - middle) * stretch / radius * np.sign(angle)
        cos, sin = np.cos(turn), np.sin(turn)
        # From pixels of the glyph: to its place on the line, stretched about its centre, turned about the baseline.
        on_line = np.array([[stretch, 0, (x - centre) * stretch], [0, 1, g.top_px], [0, 0, 1]])
        turned = np.array([[cos, -sin, baseline_radius * sin], [sin, cos, baseline_radius * (1 - cos)], [0, 0, 1]])
        transforms.append(turned @ on_line)
        corners = _box(0, 0, *g.coverage.shape)
        quads[k] = corners @ transforms[k][:2, :2].T + transforms[k][:2, 2]
    low = np.floor(quads.min((0, 1))) - MARGIN_PX
    quads -= low.astype(np.float32)
    width, rows = (np.ceil(quads.max((0, 1))) + MARGIN_PX).astype(int)
    mask = np.zeros((rows, width), np.uint8)
    for quad, transform, g in zip(quads, transforms, glyphs, strict=True):
        x0, y0 = np.floor(quad.min(0)).astype(int) - 1
        x1, y1 = np.ceil(quad.max(0)).astype(int) + 1
        matrix = transform[:2] - [[0, 0, low[0] + x0], [0, 0, low[1] + y0]]
        matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5  # OpenCV's coordinates count from the centre of a pixel
        _add(mask, cv2.warpAffine(g.coverage, matrix, (int(x1 - x0), int(y1 - y0))), int(x0), int(y0))
    return GlyphLayout(mask, quads)


def _set_line(path: str, text: str, spacing: float) -> tuple[list[Glyph], list[int]]:
    """The glyphs of a text and where the ink of each begins, in pixels from the pen's start."""
    glyphs = [glyph(path, c) for c in text]
    pens, pen = [], 0.0
    for g in glyphs:
        pens.append(pen)
        pen += g.advance_px + spacing * GLYPH_PX
    return glyphs, [round(p) + g.left_px for p, g in zip(pens, glyphs, strict=True)]


def _add(mask: np.ndarray, coverage: np.ndarray, x: int, y: int) -> None:
    """Adds a glyph to a mask, in place. Neighbouring glyphs may overlap: the larger coverage counts."""
    region = mask[y : y + coverage.shape[0], x : x + coverage.shape[1]]
    np.maximum(region, coverage, out=region)


def _box(x: int, y: int, height: int, width: int) -> np.ndarray:
    """The corners TL TR BR BL of a box, float32 [4, 2]."""
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float32)


def bend(layout: GlyphLayout, sag: float) -> GlyphLayout:
    """Bends a word along a parabola.

    Args:
      layout: a straight word.
      sag: rise of the word's middle as a fraction of its width; negative values let the middle hang.
    """
    height, width = layout.mask.shape
    rise = abs(sag) * width

    def offset(x: np.ndarray) -> np.ndarray:
        """How far a column moves down, in pixels, for columns x."""
        lift = 1 - np.square(2 * x / width - 1)
        return np.asarray(rise * (1 - lift) if sag > 0 else rise * lift)

    extra_rows = int(np.ceil(rise))
    ys, xs = np.mgrid[0 : height + extra_rows, 0:width].astype(np.float32)
    mask = cv2.remap(layout.mask, xs, (ys - offset(xs)).astype(np.float32), cv2.INTER_LINEAR, borderValue=0)
    quads = layout.quads.copy()
    quads[..., 1] += offset(quads[..., 0])
    return GlyphLayout(np.asarray(mask), quads)
