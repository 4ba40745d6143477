"""One trial of a sweep: a sample of the space becomes a config, and `train_run` trains it like any other run.

The run's folder is the trial's memory. A trial that is started again (a lost node, a killed driver, a retry) tells Tune
what its folder holds already and goes on from its last checkpoint. What Tune sees as a trial's checkpoint is a pointer
to one in storage: a paused trial finds its own again, and population based training starts a trial from another's.

A run that no longer moves is given up (`cluster/train/stall_monitor.py`): its trial fails, its processes
end with the trial's, and the sweep goes on.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tempfile
from typing import Any

from ray import tune

from cluster.config import RunSpec
from cluster.errors import RunError
from cluster.storage.checkpoints import complete_checkpoints, step_folder
from cluster.storage.location import open_uri
from cluster.train.stall_monitor import MonitoredRun, Report
from cluster.tune.search_space import Sample, SearchSpace
from textscanner.checkpoint_files import CHECKPOINT_MANIFEST_NAME

POINTER_NAME = "pointer.json"


@dataclasses.dataclass(frozen=True)
class TrialSettings:
    """What all trials of a sweep share.

    Attributes:
      spec: the run spec whose config samples change, as a dict.
      space: what is sampled.
      trials_uri: where the trials' run folders are.
      stall_s: how long a run may take no step before it is given up.
    """

    spec: dict[str, Any]
    space: SearchSpace
    trials_uri: str
    stall_s: float


def run_trial(sample: Sample, settings: TrialSettings) -> None:
    """Tune's trainable: trains a sample's config and reports every checkpoint.

    Raises:
      RunError: the run failed, or took no step for `stall_s`.
    """
    spec = RunSpec.from_dict(settings.spec)
    spec = dataclasses.replace(spec, config=settings.space.apply(spec.config, sample))
    name = _enter(settings.trials_uri, tune.get_context().get_trial_id())
    known = complete_checkpoints(f"{settings.trials_uri}/{name}")
    for checkpoint in known:
        if checkpoint.metrics:
            _tell({"step": checkpoint.step, "checkpoint": checkpoint.uri} | checkpoint.metrics)
    run = MonitoredRun(spec, settings.trials_uri, name)
    for report in run.reports(settings.stall_s):
        if len(report) > 2:  # a step without a validation teaches a sweep nothing
            _tell(report)


def _tell(report: Report) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / POINTER_NAME).write_text(json.dumps(report))
        tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))


def _enter(trials_uri: str, trial: str) -> str:
    """The name of the run's folder; one that starts from another trial's checkpoint is given a copy of it."""
    given = tune.get_checkpoint()
    if given is None:
        return trial
    with given.as_directory() as folder:
        pointer = json.loads((pathlib.Path(folder) / POINTER_NAME).read_text())
    donor, _, _ = pointer["checkpoint"].rpartition("/")
    donor_name = donor.rpartition("/")[2]
    if donor_name.partition("-")[0] == trial:
        return donor_name
    name = f"{trial}-from-{donor_name.partition('-')[0]}-{pointer['step']}"
    _copy(donor, int(pointer["step"]), f"{trials_uri}/{name}")
    return name


def _copy(run: str, step: int, target: str) -> None:
    """Copies the checkpoint of a step, or the run's newest where that one is gone; its manifest last."""
    if complete_checkpoints(target):
        return
    found = {checkpoint.step: checkpoint for checkpoint in complete_checkpoints(run)}
    if not found:
        raise RunError(f"{run} holds no complete checkpoint to start from")
    checkpoint = found.get(step, found[max(found)])
    source, copy = open_uri(checkpoint.uri), open_uri(f"{target}/{step_folder(checkpoint.step)}")
    for name in (*(file.name for file in checkpoint.files), CHECKPOINT_MANIFEST_NAME):
        copy.join(name).write_bytes(source.join(name).read_bytes())
