"""Lays out the glyphs of a word: a coverage mask and the exact ink box of every character, in layout pixels."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from textscanner.render.fonts import GLYPH_PX, glyph

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
    glyphs = [glyph(path, c) for c in text]
    top = min(g.top_px for g in glyphs)
    bottom = max(g.top_px + g.coverage.shape[0] for g in glyphs)
    pens, pen = [], 0.0
    for g in glyphs:
        pens.append(pen)
        pen += g.advance_px + spacing * GLYPH_PX
    left = [round(p) + g.left_px for p, g in zip(pens, glyphs, strict=True)]
    shift = MARGIN_PX - min(left)
    width = shift + max(x + g.coverage.shape[1] for x, g in zip(left, glyphs, strict=True)) + MARGIN_PX
    mask = np.zeros((bottom - top + 2 * MARGIN_PX, width), np.uint8)
    quads = np.empty((len(text), 4, 2), np.float32)
    for k, (x, g) in enumerate(zip(left, glyphs, strict=True)):
        x0, y0 = x + shift, g.top_px - top + MARGIN_PX
        y1, x1 = y0 + g.coverage.shape[0], x0 + g.coverage.shape[1]
        # Maximum, not assignment: neighbouring glyphs may overlap.
        region = mask[y0:y1, x0:x1]
        np.maximum(region, g.coverage, out=region)
        quads[k] = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    if stretch != 1.0:
        stretched_width = max(2, round(width * stretch))
        mask = cv2.resize(mask, (stretched_width, mask.shape[0]), interpolation=cv2.INTER_LINEAR)
        quads[..., 0] *= stretched_width / width
    return GlyphLayout(mask, quads)


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
