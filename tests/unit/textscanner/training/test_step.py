"""The training step: one trace, overfitting, accumulation, learning rate, clipping, word supervision."""

import numpy as np
import pytest
import tensorflow as tf

from tests.factories import batch_of
from tests.unit.textscanner.training.examples import learner, tensors, without_boxes
from textscanner.checkpoint import _training_variables
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


@pytest.fixture
def poisoned(words):
    """A new training state, 32 words, and the same with one value that is not finite."""
    config = override(TINY, ["optimizer.ema_momentum=0.9", "optimizer.warmup_steps=0"])
    batch = tensors(batch_of(words[:32], config))
    has_quads = tf.tensor_scatter_nd_update(batch["has_quads"], [[7]], [np.nan])
    return create_state(config, tf.distribute.get_strategy()), batch, batch | {"has_quads": has_quads}


def variables_of(state):
    return {name: variable.numpy().copy() for name, variable in _training_variables(state).items()}


def test_a_step_that_is_not_finite_changes_nothing_but_the_step_counter(poisoned):
    """Weights, moments, moving average, and the statistics of batch norm, which the forward pass updates."""
    state, batch, bad_batch = poisoned
    step = make_train_step(state)
    assert [float(step(batch).skipped) for _ in range(2)] == [0, 0]
    before = variables_of(state)
    metrics = step(bad_batch)
    assert metrics.skipped == 1 and not np.isfinite(metrics.loss)
    after = variables_of(state)
    changed = [name for name in after if not np.array_equal(before[name], after[name])]
    assert [name.rpartition("/")[2] for name in changed] == ["iteration"] and state.step == 3
    assert any("moving_variance" in name for name in after) and any("average" in name for name in after)
    assert step(batch).skipped == 0
    moved = variables_of(state)
    assert all(np.isfinite(array).all() for array in moved.values())
    assert sum(np.array_equal(after[name], moved[name]) for name in moved) < 0.1 * len(moved)


def test_if_the_first_step_is_skipped_the_moving_average_still_begins_as_the_weights(poisoned):
    state, _, bad_batch = poisoned
    make_train_step(state)(bad_batch)
    for variable, average in zip(
        state.model.trainable_variables, state.optimizer._model_variables_moving_average, strict=True
    ):
        np.testing.assert_array_equal(variable.numpy(), average.numpy())


def test_a_gradient_whose_norm_overflows_is_skipped(words):
    """Adam's second moment would overflow as well."""
    config = override(TINY, ["losses.class_weight=1e30"])
    state = create_state(config, tf.distribute.get_strategy())
    metrics = make_train_step(state)(tensors(batch_of(words[:32], config)))
    assert np.isfinite(metrics.loss) and not np.isfinite(metrics.gradient_norm) and metrics.skipped == 1


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
