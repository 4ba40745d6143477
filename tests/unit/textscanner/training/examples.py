"""Maps, words and networks that the tests of this folder share."""

import numpy as np
import tensorflow as tf

from tests.factories import batch_of
from textscanner import checkpoint
from textscanner.charset import FIRST_CHARACTER_ID
from textscanner.config import override
from textscanner.model.assembly import Outputs
from textscanner.presets import preset
from textscanner.training.step import create_state

CLASSES, POSITIONS, SURE = 8, 4, 12.0

A, B, C, X = range(FIRST_CHARACTER_ID, FIRST_CHARACTER_ID + 4)


def tensors(batch):
    return {name: tf.constant(value) for name, value in batch.items()}


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


def random_outputs(model, count, seed=0):
    rng = np.random.default_rng(seed)
    h, w = model.map_height, model.map_width
    return Outputs(
        tf.constant(rng.normal(size=(count, h, w, 38)), tf.float32),
        tf.constant(rng.normal(size=(count, h, w, model.max_label_length + 1)), tf.float32),
        tf.constant(rng.normal(size=(count, h, w)), tf.float32),
    )


def maps_of(cells):
    """Logits [1, 1, len(cells), ...] of sure maps; a cell is (class id, position from 1) or None for background."""
    classes = np.zeros((1, 1, len(cells), CLASSES), np.float32)
    order = np.zeros((1, 1, len(cells), POSITIONS + 1), np.float32)
    localization = np.full((1, 1, len(cells)), -SURE, np.float32)
    for i, cell in enumerate(cells):
        class_id, position = cell or (0, 0)
        classes[0, 0, i, class_id] = order[0, 0, i, position] = SURE
        localization[0, 0, i] = SURE if cell else -SURE
    return Outputs(*map(tf.constant, (classes, order, localization)))


def without_boxes(overfitted, config, swap):
    """The overfitted words as a batch without boxes, each label with one letter exchanged for another."""
    batch = batch_of(overfitted.words, config)
    ids = batch["ids"].copy()
    a, b = (int(config.charset.encode(letter)[0]) for letter in swap)
    ids[batch["ids"] == a] = b
    return batch | {"ids": ids, "has_quads": np.zeros_like(batch["has_quads"])}


def learner(overfitted, *more):
    """The overfitted network in a state that may be trained on."""
    fixed = ["train.global_batch_size=32", "optimizer.warmup_steps=0", "optimizer.final_lr_fraction=1"]
    config = override(
        preset("tiny"), [*fixed, "optimizer.learning_rate=0.003", "losses.word_supervision_ramp_steps=0", *more]
    )
    state = create_state(config, tf.distribute.get_strategy())
    checkpoint.restore(overfitted.checkpoint, state)
    return config, state
