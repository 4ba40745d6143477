"""The training loop with a fake step: when which event is due, and what it carries."""

import itertools

import pytest
import tensorflow as tf

from textscanner.config import TrainConfig
from textscanner.training.loop import training_loop
from textscanner.training.step import StepMetrics

CONFIG = TrainConfig(
    num_steps=7,
    global_batch_size=8,
    log_every_steps=2,
    validate_every_steps=4,
    checkpoint_every_steps=3,
    image_every_steps=5,
)


def fake_step(losses):
    """A step that returns these losses one after the other."""
    values = iter(losses)
    return lambda batch: StepMetrics(tf.constant(next(values)), *[tf.zeros(())] * (len(StepMetrics._fields) - 1))


def run(start_step=0, losses=(1.0,) * 7):
    return list(training_loop(fake_step(losses), itertools.repeat({}), start_step, CONFIG))


def test_events_follow_the_cadences_and_the_last_step_has_all():
    events = run()
    assert [event.step for event in events] == [2, 3, 4, 5, 6, 7]
    assert [event.step for event in events if event.metrics is not None] == [2, 4, 6, 7]
    assert [event.step for event in events if event.validate] == [4, 7]
    assert [event.step for event in events if event.checkpoint] == [3, 6, 7]
    assert [event.step for event in events if event.image] == [5, 7]


def test_a_resumed_loop_continues_after_its_start_step():
    assert [event.step for event in run(start_step=5)] == [6, 7]
    assert run(start_step=7) == []


def test_metrics_are_means_since_the_last_logged_step():
    logged = [event.metrics for event in run(losses=[1.0, 3.0, 5.0, 7.0, 0.0, 0.0, 9.0]) if event.metrics]
    assert [metrics["loss"] for metrics in logged] == [2.0, 6.0, 0.0, 9.0]
    assert set(logged[0]) == {*StepMetrics._fields, "images_per_s", "data_wait_fraction"}
    assert all(0 <= metrics["data_wait_fraction"] <= 1 < metrics["images_per_s"] for metrics in logged)


def test_a_loss_that_is_not_finite_ends_the_run():
    with pytest.raises(FloatingPointError, match="step 2: the loss or the gradient is not finite"):
        run(losses=[float("nan"), 1.0])
