"""What a cluster has, and what its autoscaler may still add: a cluster that scales from zero has nothing yet."""

from __future__ import annotations

import ray
from ray._private.state import state  # Ray Train asks the same; there is no public name


def cluster_limits() -> dict[str, float]:
    """Resources of the connected cluster by name, the greater of what is there and what its config lets it grow to."""
    there = ray.cluster_resources()
    may_come = state.get_max_resources_from_cluster_config() or {}
    return {name: float(max(there.get(name, 0.0), may_come.get(name, 0.0))) for name in {*there, *may_come}}
