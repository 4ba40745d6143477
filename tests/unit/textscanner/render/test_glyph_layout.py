"""Layouts: the quads contain the ink."""

import cv2
import numpy as np
import pytest

from tests.factories import settings
from textscanner.render.fonts import GLYPH_PX
from textscanner.render.glyph_layout import bend, lay_out, lay_out_on_arc

FONT = settings().fonts[0].path


def straight():
    return lay_out(FONT, "Hoax7", spacing=0.1, stretch=1.3)


def arc(degrees):
    return lay_out_on_arc(FONT, "Hoax7tyX", angle=np.deg2rad(degrees), spacing=0.05, stretch=1.2)


@pytest.mark.parametrize(
    "layout",
    [
        straight(),
        bend(straight(), 0.12),
        bend(straight(), -0.12),
        *map(arc, (25, 90, 180, -25, -90, -180)),
        lay_out_on_arc(FONT, "il", angle=3.0),
        lay_out_on_arc(FONT, "-", angle=-3.0),
    ],
)
def test_quads_contain_the_ink(layout):
    inside = np.zeros_like(layout.mask)
    for quad in layout.quads:
        grown = quad.mean(0) + (quad - quad.mean(0)) * (1 + 4 / np.maximum(np.ptp(quad, 0), 4))
        cv2.fillPoly(inside, [np.round(grown - 0.5).astype(np.int32)], 1)
    ink = layout.mask > 64
    assert (ink & (inside > 0)).sum() > 0.97 * ink.sum()
    for quad in layout.quads:
        (x0, y0), (x1, y1) = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
        assert ink[y0:y1, x0:x1].any()


def test_ink_touches_every_side_of_its_quad():
    """Each letter of an arc, turned back: its ink fills its box."""
    layout = lay_out_on_arc(FONT, "EXHEXH", angle=np.pi / 2, spacing=0.3)
    for quad in layout.quads:
        size = np.linalg.norm(quad[1] - quad[0]), np.linalg.norm(quad[3] - quad[0])
        target = np.array([[0, 0], [size[0], 0], [size[0], size[1]], [0, size[1]]], np.float32)
        upright = cv2.warpPerspective(
            layout.mask, cv2.getPerspectiveTransform(quad - 0.5, target - 0.5), (round(size[0]), round(size[1]))
        )
        for edge in (upright[:3], upright[-3:], upright[:, :3], upright[:, -3:]):
            assert edge.max() > 128


@pytest.mark.parametrize("sign", [1, -1])
def test_arc_turns_letters_evenly_and_rises_in_the_middle_or_at_the_ends(sign):
    layout = lay_out_on_arc(FONT, "HHHHHHHHH", angle=sign * np.pi)
    tops = layout.quads[:, 1] - layout.quads[:, 0]
    turns = np.rad2deg(np.arctan2(tops[:, 1], tops[:, 0]))
    np.testing.assert_allclose(np.diff(turns), np.diff(turns).mean(), atol=1.0)
    assert np.sign(turns[-1]) == sign
    assert 150 < abs(turns[-1] - turns[0]) <= 180
    heights = layout.quads.mean(1)[:, 1]
    assert sign * (heights[0] - heights[4]) > GLYPH_PX
    # Letters do not overlap: each leaves its neighbours' centres free.
    gaps = np.linalg.norm(np.diff(layout.quads.mean(1), axis=0), axis=1)
    assert gaps.min() > 0.9 * np.linalg.norm(tops, axis=1).mean()
