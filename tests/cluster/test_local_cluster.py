"""A local cluster beside one that `ray start` made on the same machine."""

import pytest
import ray

pytestmark = pytest.mark.cluster


def test_a_local_cluster_leaves_the_default_agent_port_to_ray_start(ray_session):
    """Otherwise `ray start --head` on this machine could not run jobs: "No available agent to submit job"."""
    default = ray._private.ray_constants.DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
    assert ray._private.worker._global_node.dashboard_agent_listen_port not in (0, default)
