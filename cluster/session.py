"""Joining a Ray cluster, or starting one on this machine for as long as it is needed."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.data
from ray._private.state import state  # Ray Train asks the same; there is no public name
from ray.data._internal.execution.execution_callback import ExecutionCallback

from cluster.storage.s3_settings import passed_on
from cluster.tracking.trackers import PASSED_ON as TRACKER_VARIABLES

SCHEDULING_PAUSE_S = 0.02
API_ADDRESS = "RAY_API_SERVER_ADDRESS"
NO_PORT = 9  # the discard service's: nothing listens there
IDLE_WORKERS_KEPT_MS = "60000"  # Ray ends them after a second, and the next reading task pays for a start again


@contextmanager
def local_session(num_cpus: int | None = None, state_api: bool = False) -> Iterator[None]:
    """The cluster that this process is connected to or was submitted to; else one on this machine, for the block.

    Args:
      num_cpus: CPUs of a cluster of our own; all cores by default.
      state_api: whether a cluster of our own answers questions about its actors: Ray Train frees what a trial that was
        stopped held only where it does. It costs a process and a few seconds.
    """
    ours = not ray.is_initialized()
    if ours:
        if os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_ID"):
            ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env={"env_vars": _for_workers()})
        else:
            _start(num_cpus or os.cpu_count() or 1, state_api)
    configure_data()
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def _start(num_cpus: int, state_api: bool) -> None:
    """A cluster on this machine, for this process and the ones that it starts.

    Ray Train watches over its workers through the State API, and without an address takes that of whatever cluster was
    started last on the machine, where it does not find its run and removes its workers: two runs on one machine would
    end each other. So each cluster names its own address, or one where nothing answers.
    """
    port = _free_port() if state_api else NO_PORT
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", IDLE_WORKERS_KEPT_MS)
    given = os.environ.get(API_ADDRESS)
    os.environ[API_ADDRESS] = f"http://127.0.0.1:{port}"
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=state_api,
            dashboard_port=port if state_api else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    finally:  # the cluster's processes have it; what this one starts besides may talk to others
        del os.environ[API_ADDRESS]
        if given is not None:
            os.environ[API_ADDRESS] = given


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def _for_workers() -> dict[str, str]:
    """Settings of storage and trackers that workers elsewhere need; Ray refuses those that the job came with."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    theirs = (job.get("runtime_env") or {}).get("env_vars") or {}
    ours = passed_on() | {name: os.environ[name] for name in TRACKER_VARIABLES if name in os.environ}
    return {name: value for name, value in ours.items() if name not in theirs}


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


def cluster_limits() -> dict[str, float]:
    """Resources of the connected cluster by name: what it has, or what its autoscaler may grow it to if that is more.

    A cluster that scales from zero has nothing yet.
    """
    there = ray.cluster_resources()
    may_come = state.get_max_resources_from_cluster_config() or {}
    return {name: float(max(there.get(name, 0.0), may_come.get(name, 0.0))) for name in {*there, *may_come}}
