"""When a checkpoint is due by the clock."""

import math

import pytest

from cluster.config import RunSpec, override
from cluster.train.checkpoint_clock import FIRST_AUTO_MINUTES, CheckpointClock, optimal_interval_s
from textscanner.presets import preset


class Time:
    now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def time():
    return Time()


def clock_of(time, minutes, *more):
    spec = override(RunSpec(preset("tiny")), [f"train.checkpoint_every_minutes={minutes}", *more])
    return CheckpointClock(spec.runtime.train, time)


def test_a_checkpoint_is_due_when_the_minutes_have_passed_since_the_last(time):
    clock = clock_of(time, 5)
    time.now_s += 299
    assert not clock.is_due()
    time.now_s += 1
    assert clock.is_due()
    clock.saved(time.now_s)
    assert not clock.is_due()
    time.now_s += 300
    assert clock.is_due()


def test_zero_leaves_checkpoints_to_the_steps(time):
    clock = clock_of(time, 0)
    time.now_s += 1e9
    assert not clock.is_due() and math.isinf(clock.interval_s)


def test_auto_follows_the_time_that_the_last_checkpoint_took(time):
    clock = clock_of(time, "auto", "train.mean_hours_between_failures=2")
    assert clock.interval_s == FIRST_AUTO_MINUTES * 60
    for checkpoint_s in (1.0, 9.0):
        begin_s = time.now_s
        time.now_s += checkpoint_s
        clock.saved(begin_s)
        assert clock.interval_s == pytest.approx(math.sqrt(2 * checkpoint_s * 2 * 3600))


def test_no_other_interval_loses_less_time():
    def lost_fraction(interval_s):  # by checkpoints, and by half an interval that is repeated per failure
        return 5.0 / interval_s + interval_s / 2 / 7200

    best_s = optimal_interval_s(5.0, 7200)
    assert all(lost_fraction(best_s) < lost_fraction(factor * best_s) for factor in (0.5, 0.9, 1.1, 2.0))
