"""One real all-reduce between workers placed as training will place them, with a deadline.

A process per worker: the strategy is made by `cluster/train/strategy.py` over a TF_CONFIG like Ray Train's, a vector of
64 MiB is summed. A collective waits for ever for a member that is missing, so the driver waits with a deadline, then
has the nodes' probes knock at every member's port, and names those that do not answer. Not through Ray Train itself:
it knows when a group hangs, but not who is missing.
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
from cluster.preflight.check import Check, ports_remedy
from cluster.preflight.probe import Answers, gather

REDUCED_BYTES = 64 << 20
REPEATS = 3
ANSWER_DEADLINE_S = 30.0
NAME = "collective"


class _Member:
    """A worker of the collective."""

    def __init__(self, rank: int, train: WorkerConfig) -> None:
        self._rank, self._train = rank, train

    def address(self) -> tuple[str, int]:
        """Loads TensorFlow; the node's address and a free port."""
        from cluster.logs import load_tensorflow

        load_tensorflow()
        import cluster.preflight.allreduce_bench  # noqa: F401 (so that all begin at once)

        host = ray.util.get_node_ip_address()
        with socket.create_server((host, 0)) as unused:
            return unused.getsockname()[:2]

    def reduce(self, addresses: list[str]) -> float:
        """Sums over all members; seconds of the fastest repetition.

        Raises:
          RuntimeError: the sum is wrong, or the devices are not those of the config.
        """
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": self._rank}}
        os.environ["TF_CONFIG"] = json.dumps(task)
        from cluster.preflight.allreduce_bench import time_reduction

        return time_reduction(self._train, REDUCED_BYTES, REPEATS)


@dataclasses.dataclass(frozen=True)
class Members:
    """Started members by rank."""

    actors: tuple[Any, ...]
    addresses: Answers[tuple[str, int]]

    def close(self) -> None:
        """Ends their processes."""
        for actor in self.actors:
            ray.kill(actor)


def start_members(train: WorkerConfig, place: PlacementGroup, deadline_s: float) -> Members:
    """A member in each bundle of a placement group, with TensorFlow loaded."""
    actors = tuple(_start(rank, train, place) for rank in range(train.workers))
    return Members(actors, gather({_rank(i): a.address.remote() for i, a in enumerate(actors)}, deadline_s))


def _start(rank: int, train: WorkerConfig, place: PlacementGroup) -> Any:
    options: dict[str, Any] = {
        "num_cpus": train.cpus_per_worker,
        "num_gpus": train.gpus_per_worker,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(place, placement_group_bundle_index=rank),
    }
    return ray.remote(_Member).options(**options).remote(rank, train)


def all_reduce(members: Members, probes: Mapping[str, Any], deadline_s: float, ranges: set[str]) -> Check:
    """Sums over all members and tells the bandwidth; or, asking the nodes' probes, who did not take part."""
    if members.addresses.failures:
        return Check(NAME, False, "; ".join(members.addresses.faults), "see the workers' logs in Ray's session folder")
    addresses = [f"{host}:{port}" for host, port in members.addresses.values.values()]
    done = gather({_rank(i): a.reduce.remote(addresses) for i, a in enumerate(members.actors)}, deadline_s)
    if done.failures:
        told = "; ".join([*done.faults, *_unreached(members.addresses.values, probes)])
        return Check(NAME, False, told, f"look at the workers and nodes that are named; {ports_remedy(ranges)}")
    slowest = max(done.values.values())
    speed = f"{REDUCED_BYTES >> 20} MiB in {slowest * 1e3:.0f} ms = {REDUCED_BYTES / slowest / 1e6:.0f} MB/s"
    return Check(NAME, True, f"{len(addresses)} workers, {speed}")


def _unreached(addresses: dict[str, tuple[str, int]], probes: Mapping[str, Any]) -> list[str]:
    """Members whose port takes no connection, and from where: a member listens as soon as it waits for the others.

    The members themselves cannot be asked: while TensorFlow waits, their Python stands still.
    """
    asked = gather({label: probe.connect.remote(addresses, b"") for label, probe in probes.items()}, ANSWER_DEADLINE_S)
    faults = []
    for rank, (host, port) in addresses.items():
        told = [f"from {label}: {why[rank]}" for label, why in asked.values.items() if rank in why]
        if told:
            faults.append(f"{rank} at {host}:{port} did not answer {', '.join(told)}")
    return asked.faults + (faults or ["every member's port answers: one waits for something else, see its log"])


def _rank(rank: int) -> str:
    return f"rank {rank}"
