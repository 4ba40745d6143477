"""Character quads from heat maps: near the true ones, and only where the reading equals the label."""

from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

import textscanner
from textscanner.charset import PRINTABLE_ASCII
from textscanner.config import TargetConfig, override
from textscanner.data.images import decode
from textscanner.errors import UserError
from textscanner.inference.decode import Probabilities
from textscanner.inference.pseudo_labels import UNIT_CORNERS, PseudoLabeler, box_per_std, heat_boxes
from textscanner.presets import preset
from textscanner.training.targets import draw_targets


def _boxes(quads):
    return np.concatenate([quads.min(1), quads.max(1)], 1)


def _overlap(a, b):
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), 1)
    return shared / (np.prod(a[:, 2:] - a[:, :2], 1) + np.prod(b[:, 2:] - b[:, :2], 1) - shared)


def quads_of(labeler, images, texts):
    """The quads of labels of known case."""
    return labeler.quads(images, texts, [True] * len(texts))


@pytest.fixture(scope="module")
def reader(overfitted):
    return textscanner.load(overfitted.checkpoint)


@pytest.fixture(scope="module")
def images(overfitted):
    return [decode(record.image, record.source) for record in overfitted.words]


def test_pseudo_labels_overlap_the_true_quads(reader, overfitted, images):
    predicted = quads_of(PseudoLabeler(reader, 0.0), images, [record.text for record in overfitted.words])
    assert sum(quads is not None for quads in predicted) > 0.9 * len(images)
    shares = [
        _overlap(_boxes(quads), _boxes(record.quads))
        for quads, record in zip(predicted, overfitted.words, strict=True)
        if quads is not None
    ]
    assert np.mean(np.concatenate(shares)) > 0.4


def test_only_confident_readings_of_the_label_get_quads(reader, overfitted, images):
    wrong = [record.text[:-1] + ("x" if record.text[-1].lower() != "x" else "y") for record in overfitted.words]
    true = [record.text for record in overfitted.words]
    assert quads_of(PseudoLabeler(reader, 0.0), images, wrong) == [None] * len(images)
    assert quads_of(PseudoLabeler(reader, 1.0), images, true) == [None] * len(images)
    # Punctuation has no position, so its box cannot be predicted.
    assert quads_of(PseudoLabeler(reader, 0.0), images[:1], [true[0] + "!"]) == [None]


@pytest.mark.parametrize(
    ("reading", "case_known", "is_read"), [("HOTEL", True, True), ("Hotel", True, False), ("Hotel", False, True)]
)
def test_a_reading_may_differ_in_case_from_a_label_whose_case_is_not_known(reading, case_known, is_read):
    labeler = PseudoLabeler(mock.Mock(charset=PRINTABLE_ASCII, config=preset("small")), 0.5)
    assert labeler._is_read_as("HOTEL", case_known, PRINTABLE_ASCII.encode(reading), 0.9) == is_read


@pytest.mark.parametrize("sigma_box", [0.15, 0.25, 0.4])
def test_the_size_of_a_box_follows_from_its_heat_for_any_fraction(sigma_box):
    """Maps that are drawn from known boxes give boxes of their size back."""
    model, targets = preset("small").model, TargetConfig(sigma="box", sigma_box=sigma_box)
    width_px, height_px = 16, 18
    quads = np.zeros((1, model.max_label_length, 4, 2), np.float32)
    for k, x in enumerate((24, 64, 104)):
        quads[0, k] = np.array([x, 16]) + UNIT_CORNERS * (width_px / 2, height_px / 2)
    ids = np.ones((1, model.max_label_length), np.int32)
    maps = draw_targets(quads, ids, np.array([3], np.int32), model, targets)
    order = tf.one_hot(maps.order, model.max_label_length + 1)[..., 1:]
    boxes = heat_boxes(Probabilities(order, order, maps.localization), model).numpy()[0, :3]
    sizes = boxes[:, 2:] * box_per_std(targets)
    np.testing.assert_allclose(sizes, [[width_px, height_px]] * 3, rtol=0.15)


def test_a_network_whose_gaussians_are_equally_wide_is_refused():
    config = override(preset("small"), ["targets.sigma=stride"])
    with pytest.raises(UserError) as raised:
        PseudoLabeler(mock.Mock(config=config), 0.5)
    assert str(raised.value) == (
        "targets.sigma is 'stride': the network marks all characters equally wide, so their boxes are unknown; give "
        "a checkpoint that was trained with targets.sigma=box"
    )
