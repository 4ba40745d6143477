"""Glyphs in a row: a coverage mask and the exact ink box of every character, in layout pixels."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from textscanner.render.fonts import GLYPH_PX, glyph

MARGIN_PX = 12


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """A word laid out.

    Attributes:
      mask: uint8 [H, W], coverage.
      quads: float32 [n, 4, 2], TL TR BR BL of each character's ink, x y in the mask's pixels.
    """

    mask: np.ndarray
    quads: np.ndarray

    @property
    def ink(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of all ink."""
        low, high = self.quads.min((0, 1)), self.quads.max((0, 1))
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def lay_out(path: str, text: str, spacing: float, stretch: float) -> Layout:
    """The word in a straight line.

    Args:
      path: a font that covers the text.
      spacing: extra space between characters, as a share of the glyph size; may be a little negative.
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
        region = mask[y0:y1, x0:x1]
        np.maximum(region, g.coverage, out=region)
        quads[k] = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    if stretch != 1.0:
        mask = cv2.resize(mask, (max(2, round(width * stretch)), mask.shape[0]), interpolation=cv2.INTER_LINEAR)
        quads[..., 0] *= mask.shape[1] / width
    return Layout(mask, quads)


def bend(layout: Layout, sag: float) -> Layout:
    """The word on a parabola; `sag` is the rise of its middle as a share of its width, negative hangs."""
    height, width = layout.mask.shape
    rise = abs(sag) * width

    def offset(x: np.ndarray) -> np.ndarray:
        lift = 1 - np.square(2 * x / width - 1)
        return rise * (1 - lift) if sag > 0 else rise * lift

    extra = int(np.ceil(rise))
    ys, xs = np.mgrid[0 : height + extra, 0:width].astype(np.float32)
    mask = cv2.remap(layout.mask, xs, (ys - offset(xs)).astype(np.float32), cv2.INTER_LINEAR, borderValue=0)
    quads = layout.quads.copy()
    quads[..., 1] += offset(quads[..., 0])
    return Layout(mask, quads)
