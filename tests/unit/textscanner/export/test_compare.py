"""Comparison of an exported model with its checkpoint."""

import textscanner
from textscanner.export.compare import compare
from textscanner.export.export_model import open_exported


def test_a_model_with_other_weights_is_detected(exported, overfitted, images):
    other = textscanner.load(overfitted.checkpoint)
    other.model.get_layer("class_logits").kernel.assign(-other.model.get_layer("class_logits").kernel)
    assert compare(other, open_exported(exported), images).num_different > len(images) / 2
