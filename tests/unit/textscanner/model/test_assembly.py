"""The network: size, receptive field, activations, seeds, evaluation mode."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.factories import batch_of
from textscanner.config import override
from textscanner.errors import UserError
from textscanner.model import build_model
from textscanner.model.assembly import forward
from textscanner.presets import preset

TINY = override(preset("tiny"), ["train.global_batch_size=32", "optimizer.warmup_steps=20"])


def test_presets_have_the_documented_number_of_parameters():
    assert build_model(preset("paper")).count_params() == pytest.approx(25.44e6, rel=0.001)
    assert build_model(preset("small")).count_params() < 3e6


def test_every_cell_of_every_map_depends_on_the_image():
    """Random images move every cell of every map: nothing is constant, nothing is zero."""
    config = preset("small")
    model = build_model(config)
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 128, 3), np.uint8)
    for maps in forward(model, tf.constant(images), training=False)[:3]:
        spread = np.asarray(maps).std(0)
        assert (spread > 1e-6).all()


@pytest.mark.parametrize(("name", "lowest"), [("relu", 0.0), ("silu", -0.279)])
def test_every_convolution_uses_the_configured_activation(name, lowest):
    """All but the logits and what is added to a shortcut; SiLU's minimum is -0.2785."""
    model = build_model(override(TINY, [f"model.activation={name}"]))
    activated = [layer for layer in model.layers if isinstance(layer, keras.layers.Activation)]
    of_convolutions = [layer for layer in activated if not layer.name.endswith("_float32")]
    assert {keras.activations.serialize(layer.activation) for layer in of_convolutions} == {name}
    image = np.random.default_rng(0).integers(0, 256, (4, 32, 64, 3), np.uint8)
    values = keras.Model(model.input, [layer.output for layer in of_convolutions])(image)
    lows = [float(np.min(value)) for value in values]
    assert lowest <= min(lows) <= lowest / 2


def test_the_seed_determines_the_initial_weights():
    first, again, other = (build_model(TINY, seed) for seed in (1, 1, 2))
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(first.get_weights(), other.get_weights(), strict=True))


def test_the_initial_weights_do_not_depend_on_the_global_generators():
    builds = []
    for seed in (3, 4):
        keras.utils.set_random_seed(seed)
        builds.append(build_model(TINY, 1).get_weights())
    for a, b in zip(*builds, strict=True):
        np.testing.assert_array_equal(a, b)


def draw_globally():
    """A number from each global generator: Python's, NumPy's, TensorFlow's, Keras'."""
    return random.random(), np.random.random(), float(tf.random.uniform([])), float(keras.random.uniform([]))


def test_building_leaves_the_callers_generators_as_they_were():
    drawn = []
    for build in (lambda: None, lambda: build_model(TINY, 1)):
        keras.utils.set_random_seed(5)
        draw_globally()
        build()
        drawn.append(draw_globally())
    assert drawn[0] == drawn[1]


def test_building_restores_pythons_generator_after_an_error():
    random.seed(5)
    state = random.getstate()
    with pytest.raises(UserError):
        build_model(override(preset("paper"), ["model.pretrained_backbone=missing.h5"]), 1)
    assert random.getstate() == state


def test_evaluation_is_deterministic_and_leaves_batch_statistics_unchanged(words):
    model = build_model(TINY)
    image = tf.constant(batch_of(words[:8], TINY)["image"])
    before = [w.copy() for w in model.get_weights()]
    first, second = forward(model, image, training=False), forward(model, image, training=False)
    for a, b in zip(first[:3], second[:3], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    forward(model, image, training=True)
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
