"""Decoding of hand-made probability maps."""

import numpy as np
import pytest

from textscanner.inference.decode import Probabilities, decode_maps


def test_a_word_ends_at_the_first_position_below_the_threshold():
    order = np.zeros((1, 2, 4, 3), np.float32)
    order[0, 0, 0, 0], order[0, 0, 1, 1], order[0, 0, 2, 2] = 1, 0.2, 1
    classes = np.zeros((1, 2, 4, 38), np.float32)
    classes[..., 12] = 1.0
    decoded = decode_maps(Probabilities(classes, order, np.ones((1, 2, 4), np.float32)), 0.3, stride_x=2, stride_y=4)
    assert decoded.ids.numpy().tolist() == [[12, 0, 0]]
    assert decoded.raw_ids.numpy().tolist() == [[12, 12, 12]]
    assert decoded.word_confidence.numpy()[0] == pytest.approx(1.0)
