"""The progress actor on real raylets: it stays on the driver's node, and its loss is survived."""

import json

import pytest
import ray
from ray._private.state import actors
from ray.cluster_utils import Cluster

from cluster.train.progress import notify, start_progress_actor

pytestmark = pytest.mark.cluster


@pytest.fixture
def three_nodes(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    yield
    ray.shutdown()
    cluster.shutdown()


def test_the_actor_runs_beside_the_driver_and_is_recreated_when_its_process_dies(three_nodes):
    handles = [start_progress_actor() for _ in range(6)]
    ray.get([handle.fetch.remote() for handle in handles])
    nodes = {actor["Address"]["NodeID"] for actor in actors().values()}
    assert nodes == {ray.get_runtime_context().get_node_id()}, json.dumps(actors(), default=str)
    ray.kill(handles[0], no_restart=False)
    for number in range(50):
        notify(handles[0].add_message, str(number), wait=True)
        if number and ray.get(handles[0].fetch.remote()).messages:
            return
    raise AssertionError("the actor did not come back")
