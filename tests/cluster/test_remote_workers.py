"""A cluster that was started without our environment: storage settings reach its workers, secrets do not."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap

import pytest

from tests.nodes import RAY, free_ports, node

pytestmark = pytest.mark.cluster

PRINT_WORKER_ENVIRONMENT = textwrap.dedent("""
    import json, os
    import ray
    from cluster.session import local_session
    names = ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_SECRET_ACCESS_KEY")
    with local_session():
        values = ray.get(ray.remote(lambda: {name: os.environ.get(name) for name in names}).remote())
    print("WORKER", json.dumps(values))
""")
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def head():
    """`ray start --head` without AWS variables in its environment; (address, address of its dashboard)."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    bare["RAY_AUTH_MODE"] = "disabled"  # else Ray makes a token that clients of another user could not read
    (port,), (dashboard,), (agent,) = (free_ports(start, 1) for start in (21_000, 22_000, 23_000))
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        options = ["--head", f"--port={port}", "--num-cpus=2", f"--temp-dir={folder}", "--include-dashboard=true"]
        options += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
        with node(bare, *options, f"--dashboard-agent-listen-port={agent}"):
            yield f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}"


def test_settings_reach_the_workers_of_a_cluster_and_secrets_do_not(head):
    settings = {"RAY_ADDRESS": head[0], "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_REGION": "here"}
    environment = os.environ | settings | {"AWS_SECRET_ACCESS_KEY": "secret"}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_WORKER_ENVIRONMENT],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    expected = '{"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_REGION": "here", "AWS_SECRET_ACCESS_KEY": null}'
    assert f"WORKER {expected}" in done.stdout


def test_a_submitted_job_may_set_the_same_variables(head, tmp_path):
    """Ray refuses a variable that both the job and its driver set, even to the same value."""
    (tmp_path / "print_environment.py").write_text(PRINT_WORKER_ENVIRONMENT)
    submit = [RAY, "job", "submit", "--address", head[1], "--working-dir", str(tmp_path)]
    variables = json.dumps({"env_vars": {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "PYTHONPATH": str(ROOT)}})
    done = subprocess.run(
        [*submit, "--runtime-env-json", variables, "--", sys.executable, "print_environment.py"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'WORKER {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"' in done.stdout
