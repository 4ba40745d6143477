"""Character quads from heat maps: near the true ones, and only where the reading equals the label."""

from unittest import mock

import numpy as np
import pytest

import textscanner
from textscanner.charset import PRINTABLE_ASCII
from textscanner.data.images import decode
from textscanner.inference.pseudo_labels import PseudoLabeler


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
    labeler = PseudoLabeler(mock.Mock(charset=PRINTABLE_ASCII), 0.5)
    assert labeler._is_read_as("HOTEL", case_known, PRINTABLE_ASCII.encode(reading), 0.9) == is_read
