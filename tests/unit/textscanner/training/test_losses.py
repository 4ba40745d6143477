"""Supervised losses: independent of batch split and resolution, finite for empty words."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.textscanner.training.examples import random_outputs, random_words
from textscanner.config import LossConfig, TargetConfig
from textscanner.model.assembly import Outputs
from textscanner.presets import preset
from textscanner.training.losses import _class_loss, supervised_losses
from textscanner.training.targets import draw_targets

BOX = TargetConfig(sigma="box", class_region="gaussian")


@pytest.mark.parametrize("localization", ["smooth_l1", "squared"])
def test_loss_does_not_depend_on_the_split_of_a_batch(localization):
    model, config = preset("small").model, LossConfig(localization=localization)
    quads, ids, length = random_words(model, 8, np.random.default_rng(2))
    outputs = random_outputs(model, 8)
    targets = draw_targets(quads, ids, length, model, BOX)
    boxes = tf.constant([1, 1, 0, 1, 1, 1, 0, 1], tf.float32)
    whole = supervised_losses(outputs, targets, boxes, config).total
    parts = [
        supervised_losses(
            Outputs(*(o[i : i + 2] for o in outputs[:3])),
            type(targets)(*(t[i : i + 2] for t in targets)),
            boxes[i : i + 2],
            config,
        ).total
        for i in range(0, 8, 2)
    ]
    np.testing.assert_allclose(whole, tf.concat(parts, 0), rtol=1e-6)
    assert whole[2] == 0 and whole[0] > 0


def test_loss_changes_little_with_resolution():
    config, totals = LossConfig(), []
    for scale in (1, 2):
        base = preset("small").model
        model = dataclasses.replace(base, height_px=32 * scale, width_px=128 * scale)
        quads, ids, length = random_words(base, 6, np.random.default_rng(3))
        targets = draw_targets(quads * scale, ids, length, model, BOX)
        h, w = model.map_height, model.map_width
        zeros = Outputs(tf.zeros((6, h, w, 38)), tf.zeros((6, h, w, 26)), tf.zeros((6, h, w)))
        totals.append(float(tf.reduce_mean(supervised_losses(zeros, targets, tf.ones(6), config).total)))
    assert totals[1] == pytest.approx(totals[0], rel=0.1)


def test_an_empty_word_has_finite_loss_and_gradients():
    model = preset("small").model
    targets = draw_targets(
        np.zeros((1, 25, 4, 2), np.float32), np.zeros((1, 25), np.int32), np.zeros(1, np.int32), model, BOX
    )
    outputs = random_outputs(model, 1)
    with tf.GradientTape() as tape:
        tape.watch(list(outputs[:3]))
        total = supervised_losses(outputs, targets, tf.ones(1), LossConfig()).total
    assert np.isfinite(total.numpy()).all()
    assert all(np.isfinite(g.numpy()).all() for g in tape.gradient(total, list(outputs[:3])))


def test_a_letter_of_unknown_case_may_have_either_class():
    """-log(p + p') where two ids are given, whichever of the two is the label; the plain cross entropy elsewhere."""
    h, w = 4, 6
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(2, h, w, 6)).astype(np.float32)
    classes = rng.integers(2, 6, (2, h, w)).astype(np.int32)
    other = np.stack([np.array([0, 1, 4, 5, 2, 3], np.int32)[classes[0]], classes[1]])
    probabilities = tf.nn.softmax(logits).numpy()
    p, q = (np.take_along_axis(probabilities, ids[..., None], -1)[..., 0] for ids in (classes, other))
    expected = [-np.log(p[0] + q[0]).mean(), -np.log(p[1]).mean()]
    for labels, others in ((classes, other), (other, classes)):
        loss = _class_loss(tf.constant(logits), tf.constant(labels), tf.constant(others))
        np.testing.assert_allclose(loss[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(_class_loss(*map(tf.constant, (logits, classes, other)))[1], expected[1], rtol=1e-5)
