"""The language module: starts neutral, sees present positions only, leaves the maps alone, learns from context."""

import numpy as np
import pytest
import tensorflow as tf

from tests.factories import batch_of
from textscanner.config import override
from textscanner.inference.decode import decode
from textscanner.model.assembly import build_model, forward
from textscanner.presets import preset
from textscanner.training.word_loss import word_losses

CONFIG = override(preset("tiny"), ["model.language_blocks=1", "model.normalization=group"])


@pytest.fixture
def batch(words):
    return {name: tf.constant(value) for name, value in batch_of(words[:8], CONFIG).items()}


def language_variables(model):
    return [v for v in model.trainable_variables if v.path.startswith("language")]


def decoded(outputs, **changes):
    return decode(outputs._replace(**changes), 0.0, CONFIG.model.map_stride_x, CONFIG.model.map_stride_y)


def test_a_new_module_changes_no_reading(batch):
    outputs = forward(build_model(CONFIG), batch["image"], training=False)
    with_module, without = decoded(outputs), decoded(outputs, language=None)
    np.testing.assert_array_equal(with_module.raw_ids, without.raw_ids)
    characters = without.scores / tf.reduce_sum(without.scores, -1, keepdims=True)
    np.testing.assert_allclose(with_module.scores, characters, atol=1e-3)


def test_its_logits_choose_the_class_but_never_background(batch):
    outputs = forward(build_model(CONFIG), batch["image"], training=False)
    logits = np.zeros(outputs.language.shape, np.float32)
    logits[..., 0], logits[..., 7] = 50, 40
    changed = decoded(outputs, language=tf.constant(logits))
    assert (changed.raw_ids.numpy() == 7).all() and (changed.scores.numpy()[..., 0] == 0).all()


def test_no_gradient_reaches_the_maps_through_the_module(batch):
    model = build_model(CONFIG)
    _randomize(language_variables(model))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(forward(model, batch["image"], training=True).language ** 2)
    gradients = dict(
        zip(
            [v.path for v in model.trainable_variables],
            tape.gradient(loss, [v.value for v in model.trainable_variables]),
            strict=True,
        )
    )
    for name, gradient in gradients.items():
        head = name.startswith(("class_", "order_", "localization_"))
        assert (gradient is None) == head, name


def test_it_learns_a_letter_that_only_its_neighbours_tell(batch):
    """Letters are relabelled depending on the letter before them: the class map alone cannot know."""
    model = build_model(CONFIG)
    ids = batch["ids"].numpy()
    follows = np.roll(ids, 1, 1) % 2 == 0
    targets = np.where((ids > 0) & follows & (np.arange(ids.shape[1]) > 0), 3, ids)
    variables = language_variables(model)
    optimizer = tf.keras.optimizers.Adam(0.02)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            outputs = forward(model, batch["image"], training=False)
            loss = tf.reduce_mean(word_losses(_sure(outputs, ids), tf.constant(targets), batch["length"]))
        optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
        return loss

    first = float(step())
    for _ in range(100):
        last = float(step())
    assert last < 0.3 * first


def _sure(outputs, ids):
    """The network's language logits beside maps of one cell per position that are certain of `ids`."""
    positions = ids.shape[1]
    classes = 8.0 * tf.one_hot(ids, outputs.classes.shape[-1])[:, None]
    order = tf.tile(8.0 * tf.one_hot(np.arange(1, positions + 1), positions + 1)[None, None], [len(ids), 1, 1, 1])
    localization = tf.where(tf.constant(ids)[:, None] > 0, 8.0, -8.0)
    return outputs._replace(classes=classes, order=order, localization=localization)


def _randomize(variables):
    rng = np.random.default_rng(0)
    for variable in variables:
        variable.assign(rng.normal(0, 0.1, variable.shape))
