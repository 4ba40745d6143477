"""The mathematics: targets, losses, decoding (acceptance tests of the specification)."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from textscanner.config import LossConfig, TargetConfig
from textscanner.inference.decode import decode_maps
from textscanner.model.assembly import Outputs
from textscanner.presets import preset
from textscanner.training.losses import supervised_losses
from textscanner.training.targets import IGNORE, draw_targets

STRIDE, BOX = TargetConfig(), TargetConfig(sigma="box", class_region="gaussian")


def random_words(model, count, rng):
    """Upright boxes side by side, 1 to N characters."""
    quads = np.zeros((count, model.max_label_length, 4, 2), np.float32)
    ids = np.zeros((count, model.max_label_length), np.int32)
    length = 1 + np.arange(count, dtype=np.int32) % model.max_label_length
    for b, n in enumerate(length):
        edges = np.linspace(2, model.width_px - 2, n + 1)
        gap = 0.05 * (edges[1] - edges[0])
        top, bottom = model.height_px * 0.15, model.height_px * 0.85
        for k in range(n):
            x0, x1 = edges[k] + gap, edges[k + 1] - gap
            quads[b, k] = [[x0, top], [x1, top], [x1, bottom], [x0, bottom]]
        ids[b, :n] = rng.integers(1, 38, n)
    return quads, ids, length


@pytest.mark.parametrize("name", ["paper", "small"])
@pytest.mark.parametrize("targets", [STRIDE, BOX], ids=["stride", "box"])
def test_ground_truth_maps_read_as_the_word(name, targets):
    model = preset(name).model
    quads, ids, length = random_words(model, 60, np.random.default_rng(0))
    maps = draw_targets(quads, ids, length, model, targets)
    classes = tf.one_hot(tf.maximum(maps.classes, 0), 38) * tf.cast(maps.classes != IGNORE, tf.float32)[..., None]
    order = tf.one_hot(maps.order, model.max_label_length + 1)[..., 1:]
    decoded = decode_maps(classes, order, maps.localization, 0.3, model.map_stride_x, model.map_stride_y)
    np.testing.assert_array_equal(decoded.ids, ids)
    centres = quads.mean(2)
    alive = np.asarray(ids) > 0
    off = np.abs(decoded.centres.numpy() - centres)[alive]
    assert off.max() < 1.5 * max(model.map_stride_x, model.map_stride_y)


@pytest.mark.parametrize("targets", [STRIDE, BOX], ids=["stride", "box"])
def test_localization_peaks_at_one_for_every_character(targets):
    model = preset("small").model
    quads, ids, length = random_words(model, 25, np.random.default_rng(1))
    maps = draw_targets(quads, ids, length, model, targets)
    assert float(tf.reduce_max(maps.localization)) == 1.0
    for b in range(25):
        assert np.sum(maps.localization[b].numpy() == 1.0) >= length[b]
    assert float(tf.reduce_min(maps.localization)) >= 0


def test_shrunk_boxes_agree_with_the_offset_rectangle():
    """For an upright w x h box the Vatti inset is d = wh (1 - r^2) / (2 (w + h)) on every side."""
    model = dataclasses.replace(preset("paper").model)
    box = np.array([[40, 10], [100, 10], [100, 50], [40, 50]], np.float32)
    quads = np.zeros((2, model.max_label_length, 4, 2), np.float32)
    quads[0, 0], quads[1, 0] = box, box[[1, 0, 3, 2]]  # the second is mirrored
    ids = np.zeros((2, model.max_label_length), np.int32)
    ids[:, 0] = 7
    maps = draw_targets(quads, ids, np.array([1, 1], np.int32), model, STRIDE)
    inset = (60 * 40 * (1 - 0.25**2)) / (2 * (60 + 40))
    ys, xs = np.mgrid[1 : model.height_px : 2, 1 : model.width_px : 2]
    inside = (xs >= 40 + inset) & (xs <= 100 - inset) & (ys >= 10 + inset) & (ys <= 50 - inset)
    for b in range(2):
        np.testing.assert_array_equal(maps.classes[b].numpy() == 7, inside)


def random_outputs(model, count, seed=0):
    rng = np.random.default_rng(seed)
    h, w = model.map_height, model.map_width
    return Outputs(
        tf.constant(rng.normal(size=(count, h, w, 38)), tf.float32),
        tf.constant(rng.normal(size=(count, h, w, model.max_label_length + 1)), tf.float32),
        tf.constant(rng.normal(size=(count, h, w)), tf.float32),
    )


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
            Outputs(*(o[i : i + 2] for o in outputs)),
            type(targets)(*(t[i : i + 2] for t in targets)),
            boxes[i : i + 2],
            config,
        ).total
        for i in range(0, 8, 2)
    ]
    np.testing.assert_allclose(whole, tf.concat(parts, 0), rtol=1e-6)
    assert whole[2] == 0 and whole[0] > 0


def test_loss_hardly_changes_with_resolution():
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


def test_an_empty_word_has_no_loss_but_finite_gradients():
    model = preset("small").model
    targets = draw_targets(
        np.zeros((1, 25, 4, 2), np.float32), np.zeros((1, 25), np.int32), np.zeros(1, np.int32), model, BOX
    )
    outputs = random_outputs(model, 1)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        total = supervised_losses(outputs, targets, tf.ones(1), LossConfig()).total
    assert np.isfinite(total.numpy()).all()
    assert all(np.isfinite(g.numpy()).all() for g in tape.gradient(total, list(outputs)))


def test_a_word_ends_at_the_first_weak_position():
    order = np.zeros((1, 2, 4, 3), np.float32)
    order[0, 0, 0, 0], order[0, 0, 1, 1], order[0, 0, 2, 2] = 1, 0.2, 1
    classes = np.zeros((1, 2, 4, 38), np.float32)
    classes[..., 12] = 1.0
    decoded = decode_maps(classes, order, np.ones((1, 2, 4), np.float32), 0.3, 2, 4)
    assert decoded.ids.numpy().tolist() == [[12, 0, 0]]
    assert decoded.raw_ids.numpy().tolist() == [[12, 12, 12]]
    assert decoded.word_confidence.numpy()[0] == pytest.approx(1.0)
