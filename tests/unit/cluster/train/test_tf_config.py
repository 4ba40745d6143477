"""TF_CONFIG of a worker group, which a stand-in runs in this process."""

import json
import os

from cluster.train import tf_config
from cluster.train.tf_config import TFConfigBackend


class Workers:
    """Two workers; `tasks` collects what each got as TF_CONFIG."""

    def __init__(self):
        self.tasks = []

    def execute(self, function, *arguments):
        return [function(*arguments) for _ in range(2)]

    def execute_single_async(self, rank, function, *arguments):
        function(*arguments)
        self.tasks.append(json.loads(os.environ["TF_CONFIG"]))


def test_every_worker_gets_all_addresses_and_its_own_rank(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "")
    monkeypatch.setattr(tf_config.ray, "get", list)
    workers, config = Workers(), TFConfigBackend()
    config.backend_cls().on_start(workers, config)
    first, second = workers.tasks
    assert first["cluster"] == second["cluster"] and len(set(first["cluster"]["worker"])) == 2
    assert [task["task"] for task in workers.tasks] == [{"type": "worker", "index": rank} for rank in range(2)]


def test_an_ipv6_address_is_in_brackets(monkeypatch):
    monkeypatch.setattr(tf_config, "get_address_and_port", lambda: ("fd00::1", 2000))
    assert tf_config._address() == "[fd00::1]:2000"
