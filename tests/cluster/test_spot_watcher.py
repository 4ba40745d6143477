"""A notice at a metadata server, and a raylet that leaves its cluster because of it: both real, on loopback."""

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
    """Both clouds' metadata services: asked `quiet` times it has no notice, then it has one. `asked` counts."""

    quiet = 2
    asked = 0
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
            told = json.dumps({"action": "terminate", "time": end.strftime("%Y-%m-%dT%H:%M:%SZ")})
            return self._answer(200, told) if self._has_notice() else self._answer(404, "")
        if self.path == "/computeMetadata/v1/instance/preempted" and self.headers["Metadata-Flavor"] == "Google":
            return self._answer(200, "TRUE" if self._has_notice() else "FALSE")
        return self._answer(404, "")

    def _has_notice(self) -> bool:
        self.server.asked += 1
        return self.server.asked > self.server.quiet

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
    given = ["--metadata-url", metadata.url, "--poll-s", "0.01", "--address", cluster.address]
    (worker,) = cluster.worker_nodes
    assert watch_job(["aws", *given, "--node-id", worker.node_id]) == 0
    assert metadata.asked == metadata.quiet + 1
    assert exit_code(worker) == 0
    known = {key.hex(): info for key, info in GcsClient(address=cluster.address).get_all_node_info().items()}
    # This reason is what Ray Train takes for a preemption; any other counts as a failure.
    assert "AUTOSCALER_DRAIN_PREEMPTED" in str(known[worker.node_id].death_info)
    assert [key for key, info in known.items() if info.state == 0] == [cluster.head_node.node_id]

    # In a process of its own, as on a real node, it finds out by itself which node it is on: the head is left.
    command = [sys.executable, "-m", "jobs.watch_spot", "gcp", *given]
    subprocess.run(command, check=True, cwd=ROOT, timeout=100)
    assert exit_code(cluster.head_node) == 0


def exit_code(node) -> int:
    """Of its raylet, which ends when it has drained."""
    (raylet,) = node.all_processes["raylet"]
    return raylet.process.wait(timeout=60)


def test_the_notice_says_how_long_there_is(metadata):
    metadata.quiet = 0
    assert 100 < aws_notice(metadata.url).remaining_s <= 120
    assert gcp_notice(metadata.url).remaining_s == 30


def test_a_proxy_of_the_environment_is_not_asked(metadata, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    assert gcp_notice(metadata.url) is None
    assert metadata.asked == 1


def test_watching_goes_on_where_nobody_answers():
    """First the metadata service does not, then the cluster; the third turn succeeds."""
    notice = Notice("gone", 9.0)
    asked, drained = [], []

    def ask():
        asked.append(None)
        return aws_notice("http://127.0.0.1:9") if len(asked) == 1 else notice

    def handle(given):
        drained.append(given)
        if len(drained) == 1:
            raise ConnectionError("the cluster does not answer")

    assert watch(ask, handle, poll_s=0.01) == notice
    assert (len(asked), drained) == (3, [notice, notice])
