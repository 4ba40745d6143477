"""Target maps drawn from quads: peaks, shrunk boxes, and the round trip through the decoder."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.textscanner.training.examples import random_words
from textscanner.config import TargetConfig
from textscanner.inference.decode import Probabilities, decode_maps
from textscanner.presets import preset
from textscanner.training.targets import IGNORE, draw_targets

STRIDE, BOX = TargetConfig(), TargetConfig(sigma="box", class_region="gaussian")


@pytest.mark.parametrize("name", ["paper", "small"])
@pytest.mark.parametrize("targets", [STRIDE, BOX], ids=["stride", "box"])
def test_decoding_the_target_maps_returns_the_label(name, targets):
    model = preset(name).model
    quads, ids, length = random_words(model, 60, np.random.default_rng(0))
    maps = draw_targets(quads, ids, length, model, targets)
    classes = tf.one_hot(tf.maximum(maps.classes, 0), 38) * tf.cast(maps.classes != IGNORE, tf.float32)[..., None]
    order = tf.one_hot(maps.order, model.max_label_length + 1)[..., 1:]
    decoded = decode_maps(Probabilities(classes, order, maps.localization), 0.3, model.map_stride_x, model.map_stride_y)
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


def test_shrunk_boxes_equal_the_offset_rectangle():
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


@pytest.mark.parametrize("targets", [STRIDE, BOX], ids=["stride", "box"])
@pytest.mark.parametrize("shift", [(-1, 0), (1, 0), (0, -1), (0, 1)], ids=["left", "right", "above", "below"])
def test_a_character_whose_centre_is_outside_the_map_is_not_drawn(targets, shift):
    """The others of its word stay as they were: the last of three leaves."""
    model = preset("small").model
    quads, ids, _ = random_words(model, 3, np.random.default_rng(0))
    quads, ids = quads[2:], ids[2:]
    without_last = draw_targets(quads, ids, np.array([2], np.int32), model, targets)
    # The centre moves just past an edge, so that the box still reaches into the map.
    size = np.array([model.width_px, model.height_px], np.float32)
    centre = quads[0, 2].mean(0)
    edge = np.where(np.array(shift) > 0, size + 0.5, -0.5)
    quads[0, 2] += np.where(np.array(shift) != 0, edge - centre, 0).astype(np.float32)
    maps = draw_targets(quads, ids, np.array([3], np.int32), model, targets)
    for a, b in zip(maps, without_last, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_character_whose_centre_is_just_inside_the_map_is_drawn():
    model = preset("small").model
    quads, ids, _ = random_words(model, 1, np.random.default_rng(0))
    quads[0, 0] += np.array([model.width_px - 0.5, 0.5], np.float32) - quads[0, 0].mean(0)
    maps = draw_targets(quads, ids, np.array([1], np.int32), model, BOX)
    assert maps.localization[0, 0, -1] == 1 and maps.order[0, 0, -1] == 1 and maps.classes[0, 0, -1] == ids[0, 0]
