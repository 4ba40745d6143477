"""A run at Ray's Prometheus endpoint, under the names that the dashboard draws."""

import pathlib
import re
import time
import urllib.request

import pytest
import ray

from cluster.launch import train_run
from tests.factories import rendered_records, write_dataset
from textscanner.config import override
from textscanner.presets import preset

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
DASHBOARD = pathlib.Path(__file__).parents[2] / "cluster" / "grafana" / "training.json"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    records = rendered_records(40)
    return write_dataset(str(folder / "train"), records[:32]), write_dataset(str(folder / "val"), records[32:])


def config_of(data):
    told = [f'data.train=["{data[0]}"]', f'data.val=["{data[1]}"]', "train.max_failures=0"]
    cadence = ["train.num_steps=4", "train.validate_every=2", "train.checkpoint_every=2", "train.picture_every=4"]
    return override(preset("tiny"), [*told, *cadence, "train.log_every=1", "train.threads_per_worker=1"])


def exported(run, deadline_s=60):
    """What the node's metrics port says of a run, once it says anything."""
    node = ray.nodes()[0]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        text = urllib.request.urlopen(address, timeout=10).read().decode()
        lines = [line for line in text.splitlines() if line.startswith("ray_textscanner_") and f'run="{run}"' in line]
        if lines:
            return {re.match(r"\w+", line).group(): float(line.rpartition(" ")[2]) for line in lines}
    return {}


def test_a_run_is_seen_by_prometheus(ray_session, data, tmp_path):
    train_run(config_of(data), str(tmp_path), "seen")
    figures = exported("seen")
    drawn = set(re.findall(r"ray_textscanner_\w+", DASHBOARD.read_text()))
    assert drawn - figures.keys() == {"ray_textscanner_restarts_total"}  # it has not been restarted
    assert figures["ray_textscanner_step"] == 4 and 0 <= figures["ray_textscanner_word_accuracy"] <= 1
