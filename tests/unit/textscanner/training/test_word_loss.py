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


def test_a_letter_of_unknown_case_counts_whichever_way_it_is_read():
    ids, other = tf.constant([[A, B, C, 0]]), tf.constant([[X, B, C, 0]])
    length = tf.constant([3])
    right, turned = maps_of([(A, 1), (B, 2), (C, 3)]), maps_of([(X, 1), (B, 2), (C, 3)])
    known = [float(word_losses(maps, ids, length)[0]) for maps in (right, turned)]
    unknown = [float(word_losses(maps, ids, length, other)[0]) for maps in (right, turned)]
    assert known[0] < 0.01 < known[1]
    assert max(unknown) < 0.01
