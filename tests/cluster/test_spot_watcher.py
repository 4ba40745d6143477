"""A notice from a metadata server drains a node: a real server and real raylets on loopback."""

import datetime
import http.server
import json
import pathlib
import subprocess
import sys
import threading

import pytest
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster

from cluster.deploy.spot_watcher import Notice, aws_notice, gcp_notice, watch
from jobs.watch_spot import main as watch_job

pytestmark = pytest.mark.cluster
ROOT = pathlib.Path(__file__).parents[2]


class Metadata(http.server.ThreadingHTTPServer):
    """Both clouds' metadata services: the first `num_quiet` requests get no notice. `num_requests` counts."""

    num_quiet = 2
    num_requests = 0
    token = "the session's token"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Metadata

    def do_PUT(self):
        is_token = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self._answer(200 if is_token else 404, self.server.token)

    def do_GET(self):
        if self.path == "/latest/meta-data/spot/instance-action":
            if self.headers["X-aws-ec2-metadata-token"] != self.server.token:
                return self._answer(401, "")
            end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=120)
            action = json.dumps({"action": "terminate", "time": end.strftime("%Y-%m-%dT%H:%M:%SZ")})
            return self._answer(200, action) if self._has_notice() else self._answer(404, "")
        if self.path == "/computeMetadata/v1/instance/preempted" and self.headers["Metadata-Flavor"] == "Google":
            return self._answer(200, "TRUE" if self._has_notice() else "FALSE")
        return self._answer(404, "")

    def _has_notice(self) -> bool:
        self.server.num_requests += 1
        return self.server.num_requests > self.server.num_quiet

    def _answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def metadata():
    with Metadata(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def cluster():
    """A head and a worker."""
    cluster = Cluster()
    cluster.add_node(num_cpus=1, include_dashboard=False)
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def test_notices_drain_nodes_as_preempted(cluster, metadata):
    options = ["--metadata-url", metadata.url, "--poll-s", "0.01", "--address", cluster.address]
    (worker,) = cluster.worker_nodes
    assert watch_job(["aws", *options, "--node-id", worker.node_id]) == 0
    assert metadata.num_requests == metadata.num_quiet + 1
    assert exit_code(worker) == 0
    known = {key.hex(): info for key, info in GcsClient(address=cluster.address).get_all_node_info().items()}
    # This reason is what Ray Train takes for a preemption; any other counts as a failure.
    assert "AUTOSCALER_DRAIN_PREEMPTED" in str(known[worker.node_id].death_info)
    assert [key for key, info in known.items() if info.state == 0] == [cluster.head_node.node_id]

    # As a process of its own, without --node-id, the watcher finds out its node: the head is the only one left.
    command = [sys.executable, "-m", "jobs.watch_spot", "gcp", *options]
    subprocess.run(command, check=True, cwd=ROOT, timeout=100)
    assert exit_code(cluster.head_node) == 0


def exit_code(node) -> int:
    """Of the node's raylet, which ends when it is drained."""
    (raylet,) = node.all_processes["raylet"]
    return raylet.process.wait(timeout=60)


def test_a_notice_has_the_remaining_time(metadata):
    metadata.num_quiet = 0
    assert 100 < aws_notice(metadata.url).remaining_s <= 120
    assert gcp_notice(metadata.url).remaining_s == 30


def test_a_proxy_of_the_environment_is_not_used(metadata, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    assert gcp_notice(metadata.url) is None
    assert metadata.num_requests == 1


def test_watching_continues_after_the_metadata_service_or_the_cluster_did_not_answer():
    """First the metadata service does not answer, then the cluster; the third attempt succeeds."""
    notice = Notice("gone", 9.0)
    polls, drained = [], []

    def poll():
        polls.append(None)
        return aws_notice("http://127.0.0.1:9") if len(polls) == 1 else notice

    def handle(received):
        drained.append(received)
        if len(drained) == 1:
            raise ConnectionError("the cluster does not answer")

    assert watch(poll, handle, poll_s=0.01) == notice
    assert (len(polls), drained) == (3, [notice, notice])
