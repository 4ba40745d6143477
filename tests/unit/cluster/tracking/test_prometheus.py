"""The exported gauges and the dashboard that draws them."""

import pathlib
import re

from cluster.tracking import prometheus

DASHBOARD = pathlib.Path(__file__).parents[4] / "cluster" / "deploy" / "grafana" / "training.json"


def test_the_dashboard_draws_every_metric():
    counters = {prometheus.RESTARTS: f"{prometheus.RESTARTS}_total"}  # Ray appends the suffix
    exported = {f"ray_{counters.get(name, name)}" for name in prometheus.DESCRIPTIONS}
    assert set(re.findall(r"ray_textscanner_\w+", DASHBOARD.read_text())) == exported
