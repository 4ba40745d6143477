"""Encoded images: what is decoded has the size that the header states, and that size is bounded."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.inputs import mutated
from textscanner.data.image_files import IMAGE_SUFFIXES
from textscanner.data.image_header import MAX_PIXELS, image_size
from textscanner.data.images import decode
from textscanner.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 255, (9, 17, 3), np.uint8)
IMAGES = {suffix: cv2.imencode(suffix, PIXELS)[1].tobytes() for suffix in IMAGE_SUFFIXES}


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
@given(st.data())
def test_any_image(suffix, data):
    encoded = data.draw(mutated(IMAGES[suffix]))
    try:
        image = decode(encoded, "word")
    except UserError:
        return
    size = image_size(encoded)
    assert size[0] * size[1] <= MAX_PIXELS
    # Sorted: the decoder turns an image as its metadata says.
    assert all(side <= stated for side, stated in zip(sorted(image.shape[:2]), sorted(size), strict=True))
    assert image.ndim == 3 and image.dtype == np.uint8


@given(st.binary(max_size=64))
def test_any_bytes_have_a_size_or_none(data):
    size = image_size(data)
    assert size is None or len(size) == 2
