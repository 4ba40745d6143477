"""Names and paths of runs and sweeps."""

import pytest

from cluster.storage.run_layout import RunLayout, SweepLayout


@pytest.mark.parametrize("name", ["", "a/b", ".hidden"])
def test_run_names_are_folder_names(name):
    with pytest.raises(ValueError, match="name is"):
        RunLayout("runs", name)


def test_paths_lie_below_the_run():
    run, sweep = RunLayout("s3://bucket/runs/", "first"), SweepLayout("s3://bucket/runs", "sweep")
    assert run.config == "s3://bucket/runs/first/config.json"
    assert sweep.trials == "s3://bucket/runs/sweep/trials"
