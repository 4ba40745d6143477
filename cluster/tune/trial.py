"""One trial of a sweep: a sample is applied to the config, and `train_run` trains it like any other run.

All state of a trial is in its run folder. When Tune starts a trial again (lost node, killed driver, retry), the trial
first reports the checkpoints that its folder holds, then resumes from the newest. Tune's own checkpoint of a trial is
only a pointer to one in storage: a paused trial finds its checkpoint through it, and PBT starts a trial from the
checkpoint of another one.

A run that stalls (`cluster/train/stall_monitor.py`) is a failed trial: its processes end with the trial's, and the
sweep continues.
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
from cluster.train.progress import CheckpointReport
from cluster.train.stall_monitor import MonitoredRun
from cluster.tune.search_space import Sample, SearchSpace
from textscanner.checkpoint_files import CHECKPOINT_MANIFEST_NAME

POINTER_NAME = "pointer.json"


@dataclasses.dataclass(frozen=True)
class TrialSettings:
    """What all trials of a sweep share.

    Attributes:
      spec: the run spec that samples are applied to, as a dict.
      space: the keys that are varied.
      trials_uri: folder of the trials' run folders.
      stall_s: timeout in seconds for a step of the run, once its workers have started.
    """

    spec: dict[str, Any]
    space: SearchSpace
    trials_uri: str
    stall_s: float


def run_trial(sample: Sample, settings: TrialSettings) -> None:
    """Tune's trainable: trains the config of a sample and reports each validated checkpoint.

    Raises:
      RunError: the run failed, or took no step for `stall_s`.
    """
    spec = RunSpec.from_dict(settings.spec)
    spec = dataclasses.replace(spec, config=settings.space.apply(spec.config, sample))
    name = _prepare_folder(settings.trials_uri, tune.get_context().get_trial_id())
    run_root = f"{settings.trials_uri}/{name}"
    newest_step = _report_stored(run_root, after_step=0)
    run = MonitoredRun(spec, settings.trials_uri, name)
    for report in run.reports(settings.stall_s):
        if len(report) > 2:  # more than step and checkpoint: it was validated
            _report(report)
            newest_step = report["step"]
    _report_stored(run_root, newest_step)


def _report_stored(run_root: str, after_step: int) -> int:
    """Reports the validated checkpoints in a run's folder from after a step: those from before a restart, and at the
    end those whose own report was lost. Not the ones before: Tune expects the steps in order.

    Returns:
      the newest step that has been reported.
    """
    for checkpoint in complete_checkpoints(run_root):
        if checkpoint.metrics and checkpoint.step > after_step:
            _report({"step": checkpoint.step, "checkpoint": checkpoint.uri} | checkpoint.metrics)
            after_step = checkpoint.step
    return after_step


def _report(report: CheckpointReport) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / POINTER_NAME).write_text(json.dumps(report))
        tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))


def _prepare_folder(trials_uri: str, trial: str) -> str:
    """Returns the name of the trial's run folder, with another trial's checkpoint in it if Tune starts it from there.

    The folder is named after the trial. After PBT has replaced its weights, the trial continues in a new folder,
    `TRIAL-from-DONOR-STEP`: the steps after the exchange belong to another history.
    """
    tune_checkpoint = tune.get_checkpoint()
    if tune_checkpoint is None:
        return trial
    with tune_checkpoint.as_directory() as folder:
        pointer = json.loads((pathlib.Path(folder) / POINTER_NAME).read_text())
    donor_uri, _, _ = pointer["checkpoint"].rpartition("/")
    donor_name = donor_uri.rpartition("/")[2]
    donor_trial = donor_name.partition("-")[0]
    if donor_trial == trial:
        return str(donor_name)
    name = f"{trial}-from-{donor_trial}-{pointer['step']}"
    _copy_checkpoint(donor_uri, int(pointer["step"]), f"{trials_uri}/{name}")
    return name


def _copy_checkpoint(run_uri: str, step: int, target_uri: str) -> None:
    """Copies the checkpoint of a step into another run, or the newest if retention has removed that one.

    Does nothing if the target has a checkpoint already: the trial was started before.

    Raises:
      RunError: the run holds no complete checkpoint.
    """
    if complete_checkpoints(target_uri):
        return
    by_step = {checkpoint.step: checkpoint for checkpoint in complete_checkpoints(run_uri)}
    if not by_step:
        raise RunError(f"{run_uri} holds no complete checkpoint to start from")
    checkpoint = by_step.get(step, by_step[max(by_step)])
    source, target = open_uri(checkpoint.uri), open_uri(f"{target_uri}/{step_folder(checkpoint.step)}")
    for name in (*(file.name for file in checkpoint.files), CHECKPOINT_MANIFEST_NAME):  # the last one makes it complete
        target.join(name).write_bytes(source.join(name).read_bytes())
