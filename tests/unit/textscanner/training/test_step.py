"""The training step: one trace, overfitting, accumulation, learning rate, clipping, word supervision."""

import numpy as np
import pytest
import tensorflow as tf

from tests.factories import batch_of
from tests.unit.textscanner.training.examples import learner, tensors, without_boxes
from textscanner.config import LossConfig, override
from textscanner.data.images import decode
from textscanner.inference.reader import Reader
from textscanner.presets import preset
from textscanner.training.step import create_state, make_train_step, ramp

TINY = override(preset("tiny"), ["train.global_batch_size=32", "optimizer.warmup_steps=20"])


def test_32_words_are_overfitted_in_one_trace(overfitted):
    assert overfitted.traces == 1
    assert overfitted.losses[-1] < 0.1 * overfitted.losses[0]
    readings = [reading.text for reading in overfitted.readings]
    assert readings == [record.text.lower() for record in overfitted.words]


def test_gradient_accumulation_does_not_change_the_metrics(words):
    config = override(TINY, ["model.normalization=group"])
    batch = tensors(batch_of(words[:32], config))
    metrics = []
    for micros in (1, 2):
        state = create_state(
            override(config, [f"optimizer.gradient_accumulation_steps={micros}"]), tf.distribute.get_strategy()
        )
        step = make_train_step(state)
        metrics.append(np.array([step(batch) for _ in range(4)]))
    np.testing.assert_allclose(metrics[0], metrics[1], rtol=2e-4)


def test_the_learning_rate_follows_the_configured_schedule(words):
    config = override(TINY, ["optimizer.learning_rate=0.002", "optimizer.warmup_steps=2", "train.num_steps=40"])
    state = create_state(config, tf.distribute.get_strategy())
    step = make_train_step(state)
    batch = tensors(batch_of(words[:32], config))
    rates = []
    for _ in range(40):
        rates.append(float(state.optimizer.learning_rate.numpy()))
        step(batch)
    assert rates[0] == 0 and max(rates) == pytest.approx(0.002)
    assert float(state.optimizer.learning_rate.numpy()) == pytest.approx(0.01 * 0.002, rel=1e-3)


def test_the_global_gradient_norm_is_clipped(words):
    batch = tensors(batch_of(words[:32], TINY))
    moved = []
    for clip in (0, 1e-6):
        config = override(TINY, [f"optimizer.clip_norm={clip}", "optimizer.warmup_steps=0"])
        state = create_state(config, tf.distribute.get_strategy())
        norm = make_train_step(state)(batch).gradient_norm
        velocity = [v for v in state.optimizer.variables if "velocity" in v.path]
        moved.append((float(norm), sum(float(tf.reduce_sum(v.value)) for v in velocity)))
    assert moved[0][0] == pytest.approx(moved[1][0])  # the norm is reported before clipping
    # Adam's second moment after one step is (1 - beta2) * sum of squared gradients.
    assert moved[1][1] == pytest.approx(0.001 * 1e-12, rel=0.01)


@pytest.mark.parametrize(("step", "factor"), [(0, 0.0), (100, 0.0), (150, 0.5), (200, 1.0), (999, 1.0)])
def test_word_supervision_ramps_up_linearly(step, factor):
    np.testing.assert_allclose(
        ramp(tf.constant(step), LossConfig(word_supervision_start_step=100, word_supervision_ramp_steps=100)),
        factor,
        atol=1e-6,
    )


def test_words_without_boxes_have_no_gradient_when_word_supervision_is_off(overfitted):
    config, state = learner(overfitted)
    step = make_train_step(state)
    metrics = step(tensors(without_boxes(overfitted, config, "ee")))
    assert not np.any(metrics)  # the norm of the gradient is one of them


@pytest.mark.parametrize(("setting", "term"), [("mutual_weight=1", "mutual_loss"), ("word_weight=1", "word_loss")])
def test_word_supervision_relabels_a_letter_without_boxes(setting, term, overfitted):
    """Words with the commonest letter lose their boxes, and their labels name the rarest letter instead.

    The loss of the decoded word makes the network read them so. Mutual supervision alone changes the class map but lets
    the localization of that letter fade, because none of its terms keeps it up; so only its own loss is checked.
    """
    letters = "".join(record.text.lower() for record in overfitted.words)
    common = max((c for c in set(letters) if c.isalpha()), key=letters.count)
    rare = min("abcdefghijklmnopqrstuvwxyz", key=letters.count)
    config, state = learner(overfitted, f"losses.{setting}", "losses.word_supervision_rows=without_boxes")
    batch = without_boxes(overfitted, config, common + rare)
    relabelled = np.array([common in record.text.lower() for record in overfitted.words])
    batch["has_quads"] = np.where(relabelled, 0, 1).astype(np.float32)
    step = make_train_step(state)
    metrics = [step(tensors(batch)) for _ in range(120)]
    assert np.isfinite(np.array(metrics)).all()
    first, last = (float(getattr(step_metrics, term)) for step_metrics in (metrics[0], metrics[-1]))
    assert 0 < last < 0.3 * first
    state.sync_ema()
    images = [decode(record.image, record.source) for record in overfitted.words]
    read = [reading.text for reading in Reader(config, state.ema_model).read(images)]
    labels = [record.text.lower().replace(common, rare) for record in overfitted.words]
    right = np.array([a == b for a, b in zip(read, labels, strict=True)])
    assert right[~relabelled].mean() > 0.9
    if term == "word_loss":
        assert right[relabelled].mean() > 0.7
