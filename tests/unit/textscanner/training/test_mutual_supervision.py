"""Mutual supervision on hand-made maps: which cells count, and which head the gradient reaches."""

import numpy as np
import tensorflow as tf

from tests.unit.textscanner.training.examples import POSITIONS, SURE, A, B, C, X, learner, maps_of, without_boxes
from textscanner.charset import FIRST_CHARACTER_ID
from textscanner.model.assembly import Outputs, forward
from textscanner.training.mutual_supervision import mutual_losses


def losses_of_cells(cells, ids):
    row = tf.constant([ids + [0] * (POSITIONS - len(ids))])
    return mutual_losses(maps_of(cells), row, tf.constant([len(ids)]))


def test_maps_that_match_the_label_have_no_loss():
    losses = losses_of_cells([(A, 1), None, (B, 2), (C, 3)], [A, B, C])
    assert losses.phi_classes[0] == losses.phi_order[0] == 1
    assert 0 <= losses.loss[0] < 1e-3


def test_each_map_supervises_the_other():
    wrong_class = losses_of_cells([(A, 1), (X, 2), (C, 3)], [A, B, C])
    # The class map misses B, so phi_g is 2/3; the order map finds all and supervises: 0.2 * 1 * 12 / 3.
    np.testing.assert_allclose([wrong_class.phi_classes[0], wrong_class.phi_order[0]], [2 / 3, 1])
    np.testing.assert_allclose(wrong_class.loss[0], 0.2 * SURE / 3, rtol=1e-3)
    wrong_order = losses_of_cells([(A, 1), (B, 4), (C, 3)], [A, B, C])
    np.testing.assert_allclose([wrong_order.phi_classes[0], wrong_order.phi_order[0]], [1, 2 / 3])
    np.testing.assert_allclose(wrong_order.loss[0], SURE / 3, rtol=1e-3)


def test_repeated_letters_do_not_supervise_the_order():
    twice = losses_of_cells([(A, 1), (A, 2), (B, 3)], [A, A, B])
    np.testing.assert_allclose(twice.phi_classes[0], 1 / 3)
    swapped = losses_of_cells([(A, 2), (A, 1), (B, 3)], [A, A, B])
    np.testing.assert_allclose(swapped.loss[0], twice.loss[0])


def test_empty_maps_have_zero_loss_and_zero_gradients():
    blank = maps_of([None] * 5)
    with tf.GradientTape() as tape:
        tape.watch(blank[:3])
        losses = mutual_losses(blank, tf.constant([[A, B, 0, 0], [0, 0, 0, 0]])[:1], tf.constant([2]))
        loss = tf.reduce_sum(losses.loss)
    assert loss == 0
    for gradient in tape.gradient(loss, blank[:3], unconnected_gradients=tf.UnconnectedGradients.ZERO):
        assert not np.any(gradient.numpy())
    empty = losses_of_cells([(A, 1)], [])
    assert empty.loss[0] == 0 and empty.phi_order[0] == 0


def test_unknown_characters_are_not_supervised():
    unknown = FIRST_CHARACTER_ID - 1
    losses = losses_of_cells([(A, 1), (unknown, 2)], [A, unknown])
    np.testing.assert_allclose([losses.phi_classes[0], losses.phi_order[0]], [1, 1])
    assert losses.loss[0] < 1e-3


def test_the_loss_of_a_sample_does_not_depend_on_its_batch(overfitted):
    config, state = learner(overfitted)
    batch = without_boxes(overfitted, config, "ee")
    outputs = forward(state.model, tf.constant(batch["image"]), training=False)
    whole = mutual_losses(outputs, batch["ids"], batch["length"])
    part = mutual_losses(Outputs(*(o[8:16] for o in outputs[:3])), batch["ids"][8:16], batch["length"][8:16])
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_allclose(a[8:16], b, rtol=1e-5)
