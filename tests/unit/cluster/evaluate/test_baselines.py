"""Baselines: unknown names, and packages that are not installed."""

import sys

import numpy as np
import pytest

from cluster.evaluate.baselines import TESSERACT_MIN_HEIGHT_PX, _enlarge, open_baseline
from textscanner.errors import UserError


def test_an_unknown_baseline_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"^baseline is 'nobody': must be one of rapidocr, tesseract"):
        open_baseline("nobody")


@pytest.mark.parametrize(("name", "package"), [("rapidocr", "rapidocr"), ("tesseract", "pytesseract")])
def test_a_baseline_that_is_not_installed_says_what_to_install(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # importing it fails
    with pytest.raises(UserError, match=f"baseline {name} is not installed .*pip install"):
        open_baseline(name)


def test_low_images_are_enlarged_and_get_a_border():
    image = np.full((20, 50, 3), 90, np.uint8)
    enlarged = _enlarge(image)
    assert enlarged.shape == (TESSERACT_MIN_HEIGHT_PX + 20, 100 + 20, 3)
    assert (enlarged == 90).all()
