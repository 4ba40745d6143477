"""Losses without boxes: what is counted, what flows where, and that words without boxes are learnt from."""

import numpy as np
import pytest
import tensorflow as tf

from tests.factories import batch_of
from textscanner import checkpoint
from textscanner.charset import FIRST_CHARACTER_ID
from textscanner.config import LossConfig, override
from textscanner.data.images import decode
from textscanner.inference.reader import Reader
from textscanner.model.assembly import Outputs, forward
from textscanner.presets import preset
from textscanner.training.mutual_supervision import mutual_losses
from textscanner.training.step import STEP_METRICS, create_state, make_train_step, ramp
from textscanner.training.word_loss import FLOOR, word_losses

CLASSES, POSITIONS, SURE = 8, 4, 12.0
MUTUAL_LOSS, WORD_LOSS = (STEP_METRICS.index(name) for name in ("mutual_loss", "word_loss"))
A, B, C, X = range(FIRST_CHARACTER_ID, FIRST_CHARACTER_ID + 4)


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


def mutual(cells, ids):
    row = tf.constant([ids + [0] * (POSITIONS - len(ids))])
    return mutual_losses(maps_of(cells), row, tf.constant([len(ids)]))


def test_maps_that_agree_with_the_word_have_nothing_to_teach():
    found = mutual([(A, 1), None, (B, 2), (C, 3)], [A, B, C])
    assert found.phi_classes[0] == found.phi_order[0] == 1
    assert 0 <= found.loss[0] < 1e-3


def test_a_wrong_class_is_taught_by_the_order_and_a_wrong_order_by_the_class():
    wrong_class = mutual([(A, 1), (X, 2), (C, 3)], [A, B, C])
    # The class map misses B, so phi_g is 2/3; the order map finds all and teaches: 0.2 * 1 * 12 / 3.
    np.testing.assert_allclose([wrong_class.phi_classes[0], wrong_class.phi_order[0]], [2 / 3, 1])
    np.testing.assert_allclose(wrong_class.loss[0], 0.2 * SURE / 3, rtol=1e-3)
    wrong_order = mutual([(A, 1), (B, 4), (C, 3)], [A, B, C])
    np.testing.assert_allclose([wrong_order.phi_classes[0], wrong_order.phi_order[0]], [1, 2 / 3])
    np.testing.assert_allclose(wrong_order.loss[0], SURE / 3, rtol=1e-3)


def test_a_letter_that_comes_twice_teaches_no_order():
    twice = mutual([(A, 1), (A, 2), (B, 3)], [A, A, B])
    np.testing.assert_allclose(twice.phi_classes[0], 1 / 3)
    swapped = mutual([(A, 2), (A, 1), (B, 3)], [A, A, B])
    np.testing.assert_allclose(swapped.loss[0], twice.loss[0])


def test_nothing_found_is_zero_with_zero_gradients():
    blank = maps_of([None] * 5)
    with tf.GradientTape() as tape:
        tape.watch(blank)
        found = mutual_losses(blank, tf.constant([[A, B, 0, 0], [0, 0, 0, 0]])[:1], tf.constant([2]))
        loss = tf.reduce_sum(found.loss)
    assert loss == 0
    for gradient in tape.gradient(loss, blank, unconnected_gradients=tf.UnconnectedGradients.ZERO):
        assert not np.any(gradient.numpy())
    empty = mutual([(A, 1)], [])
    assert empty.loss[0] == 0 and empty.phi_order[0] == 0


def test_characters_outside_the_charset_teach_nothing():
    unknown = FIRST_CHARACTER_ID - 1
    found = mutual([(A, 1), (unknown, 2)], [A, unknown])
    np.testing.assert_allclose([found.phi_classes[0], found.phi_order[0]], [1, 1])
    assert found.loss[0] < 1e-3


@pytest.mark.parametrize(("step", "wanted"), [(0, 0.0), (100, 0.0), (150, 0.5), (200, 1.0), (999, 1.0)])
def test_they_rise_to_their_weight(step, wanted):
    np.testing.assert_allclose(
        ramp(tf.constant(step), LossConfig(word_supervision_start_step=100, word_supervision_ramp_steps=100)),
        wanted,
        atol=1e-6,
    )


def without_boxes(learnt, config, swap):
    """The learnt words as a batch without boxes, each label with one letter exchanged for another."""
    batch = batch_of(learnt.words, config)
    ids = batch["ids"].copy()
    a, b = (int(config.charset.encode(letter)[0]) for letter in swap)
    ids[batch["ids"] == a] = b
    return batch | {"ids": ids, "has_quads": np.zeros_like(batch["has_quads"])}


def learner(learnt, *more):
    """The learnt network in a state that may be trained on."""
    fixed = ["train.global_batch_size=32", "optimizer.warmup_steps=0", "optimizer.final_lr_fraction=1"]
    config = override(
        preset("tiny"), [*fixed, "optimizer.learning_rate=0.003", "losses.word_supervision_ramp_steps=0", *more]
    )
    state = create_state(config, tf.distribute.get_strategy())
    checkpoint.restore(learnt.checkpoint, state)
    return config, state


def test_without_its_weight_words_without_boxes_change_no_gradient(learnt):
    config, state = learner(learnt)
    step = make_train_step(state)
    metrics = step({n: tf.constant(v) for n, v in without_boxes(learnt, config, "ee").items()}).numpy()
    assert not metrics.any()  # the gradient's norm is the last of them


def test_the_decoded_word_is_compared_with_the_label():
    def loss(cells, ids):
        return float(
            word_losses(maps_of(cells), tf.constant([ids + [0] * (POSITIONS - len(ids))]), tf.constant([len(ids)]))[0]
        )

    word = [(A, 1), None, (B, 2), (C, 3)]
    right = loss(word, [A, B, C])
    assert 0 <= right < 2e-3
    # One class of three; one position too many; one that is not there: each costs -log of FLOOR, or of what is left.
    assert loss(word, [A, X, C]) == pytest.approx(-np.log(FLOOR) / 3, rel=0.1)
    assert loss(word, [A, B]) > 1 + right
    assert loss(word[:-1], [A, B, C]) > 1 + right
    assert loss([None], []) == 0


@pytest.mark.parametrize(("setting", "term"), [("mutual_weight=1", MUTUAL_LOSS), ("word_weight=1", WORD_LOSS)])
def test_a_letter_is_learnt_from_words_without_boxes(setting, term, learnt):
    """Words with the commonest letter lose their boxes and are told that it is the rarest; the others keep theirs.

    The decoded word's loss makes the network read them so. MutualLosses supervision alone turns the class map, but lets
    the localization of that letter fade (nothing in it holds it), so only its own loss is asked of it here.
    """
    letters = "".join(record.text.lower() for record in learnt.words)
    common = max((c for c in set(letters) if c.isalpha()), key=letters.count)
    rare = min("abcdefghijklmnopqrstuvwxyz", key=letters.count)
    config, state = learner(learnt, f"losses.{setting}", "losses.word_supervision_rows=without_boxes")
    batch = without_boxes(learnt, config, common + rare)
    told_anew = np.array([common in record.text.lower() for record in learnt.words])
    batch["has_quads"] = np.where(told_anew, 0, 1).astype(np.float32)
    step = make_train_step(state)
    metrics = np.array([step({n: tf.constant(v) for n, v in batch.items()}).numpy() for _ in range(120)])
    assert np.isfinite(metrics).all()
    assert 0 < metrics[-1, term] < 0.3 * metrics[0, term]
    state.sync_ema()
    images = [decode(record.image, record.source) for record in learnt.words]
    read = [reading.text for reading in Reader(config, state.serving).read(images)]
    wanted = [record.text.lower().replace(common, rare) for record in learnt.words]
    right = np.array([a == b for a, b in zip(read, wanted, strict=True)])
    assert right[~told_anew].mean() > 0.9
    if term == WORD_LOSS:
        assert right[told_anew].mean() > 0.7


def test_a_sample_does_not_depend_on_its_batch(learnt):
    config, state = learner(learnt)
    batch = without_boxes(learnt, config, "ee")
    outputs = forward(state.model, tf.constant(batch["image"]), training=False)
    whole = mutual_losses(outputs, batch["ids"], batch["length"])
    part = mutual_losses(Outputs(*(o[8:16] for o in outputs)), batch["ids"][8:16], batch["length"][8:16])
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_allclose(a[8:16], b, rtol=1e-5)
