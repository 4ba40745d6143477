"""The run that `textscanner preflight` checks."""

import pytest

from jobs.preflight import _parser, _spec


def spec_of(*arguments):
    return _spec(_parser().parse_args([*arguments, "--storage", "runs"]))


@pytest.mark.parametrize("workers", [1, 3, 7])
def test_without_a_preset_any_number_of_workers_is_accepted(workers):
    spec = spec_of("--workers", str(workers), "--gpus-per-worker", "2")
    assert spec.runtime.train.workers == workers
    assert spec.num_replicas == 2 * workers
    assert spec.replica_batch_size == 2


def test_a_preset_keeps_its_batch_size():
    assert (
        spec_of("small").config.train.global_batch_size
        == spec_of("small", "--workers", "2").config.train.global_batch_size
    )


def test_set_overrides_the_flags():
    spec = spec_of("tiny", "--workers", "2", "--cpus-per-worker", "0.25", "--set", "train.workers=1")
    assert (spec.runtime.train.workers, spec.runtime.train.cpus_per_worker) == (1, 0.25)
