"""Results of a sweep in storage, and as tables."""

import csv
import io

import pyarrow.parquet
import pytest

from cluster.storage.location import open_uri
from cluster.storage.run_layout import SweepLayout
from cluster.tune.results import load_results
from tests.unit.cluster.tune.sweeps import make_results
from textscanner.config import BEST_METRIC


def test_results_are_loaded_from_storage_as_they_were_saved_and_as_tables(tmp_path):
    layout, results = SweepLayout(str(tmp_path), "s"), make_results()
    assert load_results(layout) is None
    results.save(layout)
    assert load_results(layout) == results
    rows = list(csv.DictReader(io.StringIO(open_uri(layout.table("csv")).read_bytes().decode())))
    assert [row["trial"] for row in rows][:2] == ["t2", "t6"] and rows[-1]["error"] == "not finite"
    assert rows[0]["checkpoint"] == "runs/t2/step_00000040" and float(rows[0][BEST_METRIC]) == pytest.approx(0.4)
    table = pyarrow.parquet.read_table(tmp_path / "s" / "trials.parquet")
    assert table.column("trial").to_pylist() == [row["trial"] for row in rows]


def test_a_validation_reported_twice_counts_once():
    record = make_results().trials[0]
    before = list(record.points)
    record.add(before[0])
    assert record.points == before
