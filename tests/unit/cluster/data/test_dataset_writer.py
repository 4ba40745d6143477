"""Parts of a data set: their number, and which of them an interrupted run leaves complete."""

import json

import pytest

from cluster.data.dataset_writer import IDENTITY_NAME, MAX_PART_ROWS, MIN_PART_ROWS, _complete_parts, rows_per_part
from cluster.storage.location import open_uri
from textscanner.data.schema import SCHEMA_VERSION


@pytest.mark.parametrize(("num_rows", "size"), [(1, MIN_PART_ROWS), (640_000, 10_000), (10**9, MAX_PART_ROWS)])
def test_part_size_follows_the_number_of_rows_within_limits(num_rows, size):
    assert rows_per_part(num_rows) == size


def test_parts_of_the_same_work_are_kept(tmp_path):
    folder = open_uri(str(tmp_path / "_parts"))
    assert _complete_parts(folder, {"seed": 1}) == set()
    for name in ("00000.json", "00007.json"):
        folder.join(name).write_bytes(b"{}")
    assert _complete_parts(folder, {"seed": 1}) == {0, 7}


def test_parts_of_other_work_are_deleted(tmp_path):
    folder = open_uri(str(tmp_path / "_parts"))
    _complete_parts(folder, {"seed": 1})
    folder.join("00000.json").write_bytes(b"{}")
    assert _complete_parts(folder, {"seed": 2}) == set()
    assert [name for name, _ in folder.names()] == [IDENTITY_NAME]
    assert json.loads(folder.join(IDENTITY_NAME).read_bytes()) == {"seed": 2, "schema_version": SCHEMA_VERSION}


def test_parts_of_an_earlier_schema_are_deleted(tmp_path, monkeypatch):
    folder = open_uri(str(tmp_path / "_parts"))
    _complete_parts(folder, {"seed": 1})
    folder.join("00000.json").write_bytes(b"{}")
    monkeypatch.setattr("cluster.data.dataset_writer.SCHEMA_VERSION", SCHEMA_VERSION + 1)
    assert _complete_parts(folder, {"seed": 1}) == set()
