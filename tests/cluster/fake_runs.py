"""Trials whose runs train nothing, for tests of what a sweep does with its trials.

Tune, the trials' processes, storage and checkpoints are real. Only `train_run` is replaced by a stand-in: its
checkpoint holds one number, the "quality", which grows at each validation as fast as the learning rate is good.
"""

import json
import pathlib
import tempfile
import threading

from cluster.errors import RunError
from cluster.storage.checkpoints import complete_checkpoints, step_folder, upload
from cluster.train import stall_monitor
from cluster.tune import trial
from textscanner.checkpoint_files import STATE_NAME

METRIC = "val/one_minus_ned"
GAIN = {0.01: 0.3, 1e-7: 0.0}  # quality per validation, by learning rate
DIVERGES, HANGS = 1e30, 1e20  # learning rates


def run_trial(sample, settings):
    """`cluster.tune.trial.run_trial` with the stand-in; runs in a process of its own, like any trial."""
    stall_monitor.train_run = train_run  # type: ignore[assignment]  # the stand-in is untyped
    trial.run_trial(sample, settings)


def train_run(spec, storage_uri, name, listener, *, in_sweep):
    """Takes the place of `cluster.train.launch.train_run`: resumes from the newest checkpoint in the run's folder."""
    root, train = f"{storage_uri}/{name}", spec.config.train
    learning_rate = spec.config.optimizer.learning_rate
    if learning_rate == HANGS:
        listener({"step": 0}, [])  # its workers have started
        threading.Event().wait()
    if learning_rate == DIVERGES:
        raise RunError("rank 0: the loss is not finite")
    checkpoints = complete_checkpoints(root)
    step, quality = (checkpoints[-1].step, checkpoints[-1].metrics[METRIC]) if checkpoints else (0, 0.0)
    while step < train.num_steps:
        step, quality = step + train.validate_every_steps, quality + GAIN[learning_rate]
        uri = f"{root}/{step_folder(step)}"
        with tempfile.TemporaryDirectory() as folder:
            state = {"step": step, "metrics": {METRIC: quality}}
            (pathlib.Path(folder) / STATE_NAME).write_text(json.dumps(state))
            upload(folder, uri)
        listener({"step": step}, [{"step": step, "checkpoint": uri, METRIC: quality}])
