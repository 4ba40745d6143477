"""A cluster that was started elsewhere, without our environment: storage settings reach its workers, secrets do not."""

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

TELL = textwrap.dedent("""
    import json, os
    import ray
    from cluster.session import local_session
    names = ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_SECRET_ACCESS_KEY")
    with local_session():
        there = ray.get(ray.remote(lambda: {name: os.environ.get(name) for name in names}).remote())
    print("WORKER", json.dumps(there))
""")
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def head():
    """`ray start --head` with nothing of AWS in its environment; (its address, the address of its dashboard)."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    bare["RAY_AUTH_MODE"] = "disabled"  # else Ray makes a token that clients of another user could not read
    (port,), (dashboard,), (agent,) = (free_ports(start, 1) for start in (21_000, 22_000, 23_000))
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        told = ["--head", f"--port={port}", "--num-cpus=2", f"--temp-dir={folder}", "--include-dashboard=true"]
        told += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
        with node(bare, *told, f"--dashboard-agent-listen-port={agent}"):
            yield f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}"


def test_settings_reach_the_workers_of_a_cluster_and_secrets_do_not(head):
    told = {"RAY_ADDRESS": head[0], "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_REGION": "here"}
    environment = os.environ | told | {"AWS_SECRET_ACCESS_KEY": "secret"}
    done = subprocess.run(
        [sys.executable, "-c", TELL], check=False, env=environment, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    wanted = '{"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_REGION": "here", "AWS_SECRET_ACCESS_KEY": null}'
    assert f"WORKER {wanted}" in done.stdout


def test_a_submitted_job_may_carry_the_settings_itself(head, tmp_path):
    """Ray refuses a variable that is given to the job and by the driver again, even with the same value."""
    (tmp_path / "tell.py").write_text(TELL)
    submit = [RAY, "job", "submit", "--address", head[1], "--working-dir", str(tmp_path)]
    variables = json.dumps({"env_vars": {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "PYTHONPATH": str(ROOT)}})
    done = subprocess.run(
        [*submit, "--runtime-env-json", variables, "--", sys.executable, "tell.py"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'WORKER {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"' in done.stdout
