"""Layers of our own against those of Keras."""

import keras
import numpy as np

from textscanner.model.layers import ChannelGroupNorm


def test_group_norm_equals_keras_group_normalization():
    x = np.random.default_rng(0).normal(3.0, 2.0, (3, 1, 5, 24)).astype(np.float32)
    ours, theirs = ChannelGroupNorm(), keras.layers.GroupNormalization(groups=3, epsilon=1e-5)
    ours.build(x.shape)
    theirs.build(x.shape)
    for layer in (ours, theirs):
        layer.set_weights([np.linspace(0.5, 2, 24), np.linspace(-1, 1, 24)])
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-4)
