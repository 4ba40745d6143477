"""Layouts: the quads contain the ink."""

import cv2
import numpy as np
import pytest

from tests.factories import settings
from textscanner.render.glyph_layout import bend, lay_out


@pytest.mark.parametrize("sag", [0.0, 0.12, -0.12])
def test_quads_contain_the_ink(sag):
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
