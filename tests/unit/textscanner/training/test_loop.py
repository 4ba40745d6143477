"""The training loop with a fake step: when which event is due, and what it carries."""

import dataclasses
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
NAN = float("nan")


def fake_step(losses):
    """A step that returns these losses one after the other."""
    values = iter(losses)
    return lambda batch: StepMetrics(tf.constant(next(values)), *[tf.zeros(())] * (len(StepMetrics._fields) - 1))


def skipping_step(losses):
    """The same, but steps without a finite loss are skipped."""
    step = fake_step(losses)

    def skip(batch):
        metrics = step(batch)
        return metrics._replace(skipped=1.0 - tf.cast(tf.math.is_finite(metrics.loss), tf.float32))

    return skip


def run_skipping(losses, max_skipped_steps, config=CONFIG):
    return list(training_loop(skipping_step(losses), itertools.repeat({}), 0, config, max_skipped_steps))


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
    with pytest.raises(FloatingPointError, match="step 1: the loss or the gradient is not finite"):
        run(losses=[float("nan"), 1.0])


def test_skipped_steps_are_counted_and_left_out_of_the_means():
    events = run_skipping([1.0, 3.0, NAN, 7.0, NAN, NAN, 9.0], max_skipped_steps=2)
    logged = {event.step: event.metrics for event in events if event.metrics}
    assert {step: metrics["loss"] for step, metrics in logged.items()} == {2: 2.0, 4: 7.0, 7: 9.0}
    assert {step: metrics["skipped"] for step, metrics in logged.items()} == {2: 0, 4: 1, 7: 2}
    assert [(event.step, event.num_skipped) for event in events if event.num_skipped] == [(3, 1), (5, 1), (6, 1)]


def test_what_is_due_at_a_skipped_step_waits_for_an_event_at_one_that_counts():
    events = run_skipping([1.0, 1.0, NAN, NAN, NAN, 1.0, 1.0], max_skipped_steps=3)
    assert [event.step for event in events if event.validate or event.checkpoint or event.image] == [6, 7]
    assert events[-2].validate and events[-2].checkpoint and events[-2].image
    last = run_skipping([1.0] * 6 + [NAN], max_skipped_steps=3)[-1]
    assert last.step == 7 and last.validate and last.checkpoint and last.image


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_more_skipped_steps_in_a_row_than_the_limit_end_the_run(limit):
    losses = [NAN] * limit + [1.0] + [NAN] * (limit + 1)
    config = dataclasses.replace(CONFIG, num_steps=len(losses))
    with pytest.raises(FloatingPointError, match=f"in {limit + 1} steps in a row; lower optimizer.learning_rate"):
        run_skipping(losses, limit, config)
    assert run_skipping([*losses[:-1], 1.0], limit, config)


def test_a_step_that_is_not_finite_and_was_not_skipped_ends_the_run_whatever_the_limit():
    with pytest.raises(FloatingPointError, match="step 1: the loss or the gradient is not finite"):
        list(training_loop(fake_step([NAN, 1.0]), itertools.repeat({}), 0, CONFIG, max_skipped_steps=20))


@pytest.mark.parametrize("due", ["validate", "checkpoint", "image"])
@pytest.mark.parametrize("bad_step", range(1, 8))
def test_nothing_happens_on_weights_that_are_not_known_to_be_finite(due, bad_step):
    """Logging is rarer than everything else: it must not be what discovers the step."""
    every = {f"{name}_every_steps": 3 if name == due else 100 for name in ("validate", "checkpoint", "image")}
    config = TrainConfig(num_steps=7, global_batch_size=8, log_every_steps=100, **every)
    losses = [float("inf") if step == bad_step else 1.0 for step in range(1, 8)]
    steps = []
    with pytest.raises(FloatingPointError, match=f"step {bad_step}: "):
        steps += (event.step for event in training_loop(fake_step(losses), itertools.repeat({}), 0, config))
    assert steps == [step for step in (3, 6) if step < bad_step]


def test_metrics_of_steps_between_other_events_are_all_counted():
    config = dataclasses.replace(CONFIG, log_every_steps=7)
    events = list(training_loop(fake_step([float(i) for i in range(7)]), itertools.repeat({}), 0, config))
    assert [event.metrics["loss"] for event in events if event.metrics] == [3.0]
