"""Connecting to a Ray cluster or starting a local one for as long as it is needed; Ray Data settings; cluster size."""

from __future__ import annotations

import functools
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray
import ray.data
from ray._private.parameter import RayParams
from ray._private.state import state  # Ray Train uses it too; there is no public equivalent
from ray.data._internal.execution.execution_callback import ExecutionCallback

from cluster.storage import s3_settings
from cluster.tracking import trackers

SCHEDULING_PAUSE_S = 0.02
API_ADDRESS = "RAY_API_SERVER_ADDRESS"
AUTH_MODE, AUTH_TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
DISCARD_PORT = 9  # the discard service: nothing listens there
IDLE_WORKER_TIMEOUT_MS = "60000"  # Ray's default is one second, after which the next reading task pays a cold start


@contextmanager
def local_session(num_cpus: int | None = None, state_api: bool = False) -> Iterator[None]:
    """Connects to the cluster of this job or of RAY_ADDRESS; otherwise starts a local cluster for the block.

    Args:
      num_cpus: CPUs of the local cluster; all cores by default.
      state_api: whether the local cluster serves Ray's State API. Without it Ray Train does not free the resources of
        a trial that was stopped. It costs a process and a few seconds.
    """
    is_owner = not ray.is_initialized()
    if is_owner:
        if os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_ID"):
            ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env={"env_vars": _worker_variables()})
        else:
            _start_local_cluster(num_cpus or os.cpu_count() or 1, state_api)
    configure_data()
    try:
        yield
    finally:
        if is_owner:
            ray.shutdown()


def _start_local_cluster(num_cpus: int, state_api: bool) -> None:
    """Starts a cluster on this machine, reachable only by this process and its children.

    Ray Train watches its workers through the State API. Without an address it queries whichever cluster was started
    last on the machine, does not find its run there, and removes the run's workers: two runs on one machine would kill
    each other. So each local cluster sets its own address, or one where nothing listens.

    The cluster gets a token of its own. Ray would otherwise write one to ~/.ray/auth_token, and from then on
    `ray start --head` on this machine would demand a token that `ray job submit` does not send.

    The node's agent gets a free port. The default one would be taken from a cluster that `ray start` makes on this
    machine, which then could not run jobs ("No available agent to submit job").
    """
    port = _free_port() if state_api else DISCARD_PORT
    variables = {API_ADDRESS: f"http://127.0.0.1:{port}", AUTH_TOKEN: _token(), s3_settings.ANSWERED: "1"}
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", IDLE_WORKER_TIMEOUT_MS)
    with _environment(variables, restored=[*variables, AUTH_MODE]), _free_agent_port():
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=state_api,
            dashboard_port=port if state_api else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


@contextmanager
def _free_agent_port() -> Iterator[None]:
    """Lets `ray.init` choose a free port for the node's agent; it has no parameter for it, `ray start` has one."""
    original = RayParams.__init__
    RayParams.__init__ = functools.partialmethod(original, dashboard_agent_listen_port=0)  # type: ignore[assignment]
    try:
        yield
    finally:
        RayParams.__init__ = original  # type: ignore[method-assign]


@contextmanager
def _environment(variables: Mapping[str, str], restored: Sequence[str]) -> Iterator[None]:
    """Sets environment variables for the block: the cluster's processes inherit them, later children do not.

    Args:
      restored: names that get their earlier values back, also those that the block sets (`ray.init` sets AUTH_MODE).
    """
    before = {name: os.environ.get(name) for name in restored}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@functools.cache
def _token() -> str:
    """The token of this process's local clusters: Ray reads it once per process."""
    return os.environ.get(AUTH_TOKEN) or secrets.token_hex(32)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _worker_variables() -> dict[str, str]:
    """Storage and tracker settings for remote workers; Ray refuses those that the job's runtime_env already sets."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    set_by_job = (job.get("runtime_env") or {}).get("env_vars") or {}
    variables = s3_settings.passed_on() | trackers.passed_on() | {s3_settings.ANSWERED: "1"}
    return {name: value for name, value in variables.items() if name not in set_by_job}


def configure_data() -> None:
    """Configures Ray Data in this process: blocks in order, so that results are deterministic; no output; throttled."""
    context = ray.data.DataContext.get_current()
    context.custom_execution_callback_classes = [_ThrottleScheduling]
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # Ray Data resets its level when it is imported


class _ThrottleScheduling(ExecutionCallback):
    """Sleeps in each iteration of Ray Data's scheduling loop.

    The loop blocks until a task finishes. While finished blocks wait for a slower consumer (a training step, the normal
    case) it spins instead, and takes half a core and the GIL from the process that dispatches the step.
    """

    def on_execution_step(self, executor: Any) -> None:
        time.sleep(SCHEDULING_PAUSE_S)


def cluster_limits() -> dict[str, float]:
    """Resources by name: what the connected cluster has, or what its autoscaler may grow it to if that is more.

    A cluster that scales from zero has nothing yet.
    """
    current = ray.cluster_resources()
    maximum = state.get_max_resources_from_cluster_config() or {}
    return {name: float(max(current.get(name, 0.0), maximum.get(name, 0.0))) for name in {*current, *maximum}}
