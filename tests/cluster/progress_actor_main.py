"""A driver on three raylets, for `test_progress_actor.py`: a process can be connected to one cluster only."""

import json

import ray
from ray._private.state import actors
from ray.cluster_utils import Cluster

from cluster.train.progress import notify, start_progress_actor


def main() -> None:
    """Fails with an AssertionError if the actor is on another node, or does not come back."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    handles = [start_progress_actor() for _ in range(6)]
    ray.get([handle.fetch.remote() for handle in handles])
    nodes = {actor["Address"]["NodeID"] for actor in actors().values()}
    assert nodes == {ray.get_runtime_context().get_node_id()}, json.dumps(actors(), default=str)
    ray.kill(handles[0], no_restart=False)
    for number in range(50):
        notify(handles[0].add_message, str(number), wait=True)
        if number and ray.get(handles[0].fetch.remote()).messages:
            break
    else:
        raise AssertionError("the actor did not come back")
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
