"""The loss of the decoded word on hand-made maps."""

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.textscanner.training.examples import POSITIONS, A, B, C, X, maps_of
from textscanner.training.word_loss import FLOOR, word_losses


def test_word_loss_penalizes_wrong_extra_and_missing_characters():
    def loss(cells, ids):
        return float(
            word_losses(maps_of(cells), tf.constant([ids + [0] * (POSITIONS - len(ids))]), tf.constant([len(ids)]))[0]
        )

    word = [(A, 1), None, (B, 2), (C, 3)]
    right = loss(word, [A, B, C])
    assert 0 <= right < 2e-3
    # One class of three; one position too many; one that is not there: each costs -log of FLOOR, or of what is left.
    assert loss(word, [A, X, C]) == pytest.approx(-np.log(FLOOR) / 3, rel=0.1)
    assert loss(word, [A, B]) > 1 + right
    assert loss(word[:-1], [A, B, C]) > 1 + right
    assert loss([None], []) == 0
