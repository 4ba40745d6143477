"""Tells Ray Train's workers about each other: sets TF_CONFIG, from which TensorFlow builds its strategy.

Ray's own `TensorflowConfig` does the same, but its package imports TensorFlow: five seconds and hundreds of megabytes,
in the driver and in Ray Train's controller, which compute nothing.
"""

from __future__ import annotations

import json
import os
from typing import Any

import ray
from ray.train._internal.base_worker_group import BaseWorkerGroup
from ray.train._internal.utils import get_address_and_port  # Ray's own backends use it; there is no public equivalent
from ray.train.backend import Backend, BackendConfig


class TFConfigBackend(BackendConfig):
    """The backend config of a `DataParallelTrainer` whose workers form a TensorFlow cluster."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _Backend


class _Backend(Backend):
    def on_start(self, worker_group: BaseWorkerGroup, backend_config: BackendConfig) -> None:
        """Gives every worker all addresses in the order of ranks; also after a restart of the worker group."""
        addresses = worker_group.execute(_address)
        settings: list[Any] = [
            worker_group.execute_single_async(rank, _set, addresses, rank) for rank in range(len(addresses))
        ]
        ray.get(settings)


def _address() -> str:
    """This node's address with a free port."""
    host, port = get_address_and_port()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _set(addresses: list[str], rank: int) -> None:
    task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
    os.environ["TF_CONFIG"] = json.dumps(task)
