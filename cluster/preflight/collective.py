"""One real all-reduce between workers that are placed as training will place them, with a timeout.

Each worker is a process that creates the strategy with `cluster/train/strategy.py` from a TF_CONFIG like Ray Train's
and sums a vector of 64 MiB. A collective waits forever for a missing worker. So the driver waits with a timeout, then
lets the nodes' probes connect to every worker's port, and names the workers that do not answer. Ray Train itself is not
used: it notices that a group of workers hangs, but not which one is missing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from collections.abc import Mapping
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.config import WorkerConfig
from cluster.preflight.check import CheckResult, ports_remedy
from cluster.preflight.probe import Address, Answers, gather

REDUCED_BYTES = 64 << 20
REPEATS = 3
CONNECT_TIMEOUT_S = 30.0
CHECK_NAME = "collective"


class _CollectiveWorker:
    """A worker of the collective: a Ray actor."""

    def __init__(self, rank: int, train: WorkerConfig) -> None:
        self._rank, self._train = rank, train

    def address(self) -> Address:
        """Loads TensorFlow; returns the node's address and a free port."""
        from cluster.logs import load_tensorflow

        load_tensorflow()
        import cluster.preflight.allreduce_bench  # noqa: F401 (so that all workers start the collective together)

        host = ray.util.get_node_ip_address()
        with socket.create_server((host, 0)) as unused:
            return host, int(unused.getsockname()[1])

    def time_allreduce(self, addresses: list[str]) -> float:
        """Sums over all workers; returns the seconds of the fastest repetition.

        Args:
          addresses: `host:port` of every worker, by rank.

        Raises:
          RuntimeError: the sum is wrong, or the devices are not those of the config.
        """
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": self._rank}}
        os.environ["TF_CONFIG"] = json.dumps(task)
        from cluster.preflight.allreduce_bench import time_allreduce

        return time_allreduce(self._train, REDUCED_BYTES, REPEATS)


@dataclasses.dataclass(frozen=True)
class CollectiveWorkers:
    """Started workers, by rank."""

    actors: tuple[Any, ...]
    addresses: Answers[Address]

    def close(self) -> None:
        """Ends their processes."""
        for actor in self.actors:
            ray.kill(actor)


def start_workers(train: WorkerConfig, placement_group: PlacementGroup, timeout_s: float) -> CollectiveWorkers:
    """Starts a worker in each bundle of a placement group, with TensorFlow loaded."""
    actors = tuple(_start(rank, train, placement_group) for rank in range(train.workers))
    calls = {_label(rank): actor.address.remote() for rank, actor in enumerate(actors)}
    return CollectiveWorkers(actors, gather(calls, timeout_s))


def _start(rank: int, train: WorkerConfig, placement_group: PlacementGroup) -> Any:
    options: dict[str, Any] = {
        "num_cpus": train.cpus_per_worker,
        "num_gpus": train.gpus_per_worker,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(placement_group, placement_group_bundle_index=rank),
    }
    return ray.remote(_CollectiveWorker).options(**options).remote(rank, train)


def check_allreduce(
    workers: CollectiveWorkers, probes: Mapping[str, Any], timeout_s: float, port_ranges: set[str]
) -> CheckResult:
    """Sums over all workers and gives the bandwidth; if that fails, names the workers that the probes cannot reach."""
    if workers.addresses.errors:
        problems = "; ".join(workers.addresses.problems)
        return CheckResult(CHECK_NAME, False, problems, "see the workers' logs in Ray's session folder")
    addresses = [f"{host}:{port}" for host, port in workers.addresses.values.values()]
    calls = {_label(rank): actor.time_allreduce.remote(addresses) for rank, actor in enumerate(workers.actors)}
    seconds = gather(calls, timeout_s)
    if seconds.errors:
        problems = "; ".join([*seconds.problems, *_unreachable(workers.addresses.values, probes)])
        remedy = f"check the workers and nodes named here; {ports_remedy(port_ranges)}"
        return CheckResult(CHECK_NAME, False, problems, remedy)
    slowest_s = max(seconds.values.values())
    speed = f"{REDUCED_BYTES >> 20} MiB in {slowest_s * 1e3:.0f} ms = {REDUCED_BYTES / slowest_s / 1e6:.0f} MB/s"
    return CheckResult(CHECK_NAME, True, f"{len(addresses)} workers, {speed}")


def _unreachable(addresses: dict[str, Address], probes: Mapping[str, Any]) -> list[str]:
    """Workers whose port accepts no connection, and from where: a worker listens as soon as it waits for the others.

    The workers cannot be asked themselves: while TensorFlow waits, their Python threads do not run.
    """
    calls = {label: probe.connect.remote(addresses, b"") for label, probe in probes.items()}
    refusals = gather(calls, CONNECT_TIMEOUT_S)
    problems = []
    for rank, (host, port) in addresses.items():
        reasons = [f"from {label}: {by_rank[rank]}" for label, by_rank in refusals.values.items() if rank in by_rank]
        if reasons:
            problems.append(f"{rank} at {host}:{port} did not answer {', '.join(reasons)}")
    everyone_answers = "every worker's port answers, so a worker is blocked by something else: see its log"
    return refusals.problems + (problems or [everyone_answers])


def _label(rank: int) -> str:
    return f"rank {rank}"
