"""Joining a Ray cluster, or starting one on this machine for as long as it is needed."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.data
from ray.data._internal.execution.execution_callback import ExecutionCallback

from cluster.s3_settings import passed_on

SCHEDULING_PAUSE_S = 0.02


@contextmanager
def local_session(num_cpus: int | None = None) -> Iterator[None]:
    """The cluster that this process is connected to or was submitted to; else one on this machine, for the block.

    Args:
      num_cpus: CPUs of a cluster of our own; all cores by default.
    """
    ours = not ray.is_initialized()
    if ours:
        if os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_ID"):
            ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env={"env_vars": _for_workers()})
        else:
            ray.init(
                address="local",
                num_cpus=num_cpus or os.cpu_count(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    configure_data()
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def _for_workers() -> dict[str, str]:
    """Storage settings that workers on other nodes need; Ray refuses those that the job was submitted with again."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    theirs = (job.get("runtime_env") or {}).get("env_vars") or {}
    return {name: value for name, value in passed_on().items() if name not in theirs}


def configure_data() -> None:
    """Ray Data in this process: blocks in order, so that results are deterministic; no output of its own; paced."""
    context = ray.data.DataContext.get_current()
    context.custom_execution_callback_classes = [_Paced]
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # Ray Data resets its level when it is imported


class _Paced(ExecutionCallback):
    """A pause in each turn of Ray Data's scheduling loop.

    The loop waits for tasks to get ready; while ready blocks wait for a slow consumer (a training step, the normal
    case) it turns without waiting, and takes half a core and Python's lock from the step beside it.
    """

    def on_execution_step(self, executor: Any) -> None:
        """Called at the end of each turn."""
        time.sleep(SCHEDULING_PAUSE_S)
