"""The language module: starts neutral, sees present positions only, leaves the maps alone, learns from context."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.factories import batch_of
from textscanner.config import override
from textscanner.inference.decode import decode
from textscanner.model.assembly import build_model, forward
from textscanner.model.language import language_logits
from textscanner.presets import preset
from textscanner.training.step import create_state, make_train_step

CONFIG = override(
    preset("tiny"), ["model.language_blocks=1", "model.language_channels=32", "model.normalization=group"]
)
CLASSES, POSITIONS, CHANNELS = 8, 6, 4
SURE = 9.0


@pytest.fixture
def batch(words):
    return {name: tf.constant(value) for name, value in batch_of(words[:8], CONFIG).items()}


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
    randomize(v for v in model.trainable_variables if v.path.startswith("language"))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(forward(model, batch["image"], training=True).language ** 2)
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        in_head = variable.path.startswith(("class_", "order_", "localization_"))
        assert (gradient is None) == in_head, variable.path


@pytest.mark.parametrize("word_weight", [0, 1])
def test_the_word_loss_trains_it_and_without_one_a_step_still_runs(word_weight, words):
    config = override(CONFIG, [f"losses.word_weight={word_weight}", "losses.word_supervision_ramp_steps=0"])
    config = override(config, ["optimizer.warmup_steps=0", "optimizer.weight_decay=0"])
    state = create_state(config, tf.distribute.get_strategy())
    layer = state.model.get_layer("language_logits")
    step = make_train_step(state)
    for _ in range(2):  # the ramp begins at 0
        step({name: tf.constant(value) for name, value in batch_of(words[:8], config).items()})
    assert bool(layer.kernel.numpy().any()) == bool(word_weight)


@pytest.fixture
def module():
    """The module alone: maps of one row with a cell per position -> logits."""
    inputs = [
        keras.Input((1, POSITIONS, channels), name=name)
        for name, channels in (("features", CHANNELS), ("classes", CLASSES), ("order", POSITIONS + 1))
    ]
    localization = keras.Input((1, POSITIONS), name="localization")
    keras.utils.set_random_seed(3)
    features, classes, order = inputs
    logits = language_logits(features, classes, order, localization, CONFIG.model)
    return keras.Model([*inputs, localization], logits)


def maps(ids):
    """Sure maps of words of int ids [B, n], n up to POSITIONS: one cell per character, the features are noise."""
    count, length = ids.shape
    features = np.random.default_rng(1).normal(size=(count, 1, POSITIONS, CHANNELS)).astype(np.float32)
    classes = np.zeros((count, 1, POSITIONS, CLASSES), np.float32)
    classes[:, 0, :length] = SURE * np.eye(CLASSES, dtype=np.float32)[ids]
    order = np.broadcast_to(
        SURE * np.eye(POSITIONS, POSITIONS + 1, 1, np.float32), (count, 1, POSITIONS, POSITIONS + 1)
    )
    localization = np.full((count, 1, POSITIONS), -SURE, np.float32)
    localization[:, 0, :length] = SURE
    return [features, classes, np.array(order), localization]


def test_positions_that_the_image_does_not_have_change_nothing(module):
    randomize(module.trainable_variables)
    ids = np.random.default_rng(0).integers(2, CLASSES, (16, 3))
    before, after = maps(ids), maps(ids)
    after[0][:, :, 3:] += 5.0
    after[1][:, :, 3:, 4] = SURE
    np.testing.assert_allclose(module(before)[:, :3], module(after)[:, :3], atol=0.02)
    present = maps(np.concatenate([ids, np.full((16, 1), 4)], 1))
    assert np.abs(module(before)[:, :3] - module(present)[:, :3]).max() > 0.1


def test_it_learns_a_letter_that_only_its_neighbours_tell(module):
    """Here the class of a position is that of the one before it. Words that were not trained on must follow, too."""
    rng = np.random.default_rng(0)
    optimizer = keras.optimizers.Adam(0.005)

    @tf.function
    def step(inputs, targets):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=module(inputs)[:, 1:])
            )
        optimizer.apply(tape.gradient(loss, [v.value for v in module.trainable_variables]), module.trainable_variables)

    for _ in range(300):
        ids = rng.integers(2, CLASSES, (64, POSITIONS))
        step([tf.constant(m) for m in maps(ids)], tf.constant(ids[:, :-1]))
    ids = rng.integers(2, CLASSES, (256, POSITIONS))
    assert (np.argmax(module(maps(ids))[:, 1:], -1) == ids[:, :-1]).mean() > 0.95


def randomize(variables):
    rng = np.random.default_rng(0)
    for variable in variables:
        variable.assign(rng.normal(0, 0.3, variable.shape))
