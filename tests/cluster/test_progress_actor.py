"""The progress actor on real raylets: it stays on the driver's node, and its loss is survived."""

import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.cluster
ROOT = pathlib.Path(__file__).parents[2]


def test_the_actor_runs_beside_the_driver_and_is_recreated_when_its_process_dies():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "disabled"}
    driver = [sys.executable, "-m", "tests.cluster.progress_actor_main"]
    done = subprocess.run(driver, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
