"""A driver on three raylets, for `test_progress_actor.py`: a process can be connected to one cluster only."""

import json
import time
from typing import Any

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
    end_s = time.monotonic() + 120
    while not _answers(handles[0]):
        assert time.monotonic() < end_s, "the actor did not come back"
        time.sleep(0.5)
    ray.shutdown()
    cluster.shutdown()


def _answers(actor: Any) -> bool:
    """Whether the actor takes a message and returns it. While it is restarted, `notify` must not raise."""
    notify(actor.add_message, "hello", wait=True)
    try:
        return bool(ray.get(actor.fetch.remote()).messages)
    except ray.exceptions.ActorUnavailableError:
        return False


if __name__ == "__main__":
    main()
