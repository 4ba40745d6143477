"""Comparison of an exported model with its checkpoint."""

import pytest

import textscanner
from textscanner.data.images import decode
from textscanner.export.export_model import compare, open_exported


@pytest.fixture(scope="module")
def reader(learnt):
    return textscanner.load(learnt.checkpoint)


@pytest.fixture(scope="module")
def images(learnt):
    return [decode(record.image, record.source) for record in learnt.words[:32]]


def test_a_model_with_other_weights_is_detected(exported, learnt, images):
    other = textscanner.load(learnt.checkpoint)
    other.model.get_layer("class_logits").kernel.assign(-other.model.get_layer("class_logits").kernel)
    assert compare(other, open_exported(exported), images).num_different > len(images) / 2
