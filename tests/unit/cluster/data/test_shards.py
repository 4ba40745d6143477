"""Data sets on disk: round trip, manifest and damage."""

import dataclasses
import json

import numpy as np
import pytest

from cluster.data import shards
from cluster.data.shards import (
    ROW_GROUP_ROWS,
    prepare_destination,
    read_manifest,
    read_records,
    read_row_group,
    write_manifest,
    write_shard,
)
from tests.factories import write_dataset
from textscanner.data import schema
from textscanner.data.schema import DATASET_MANIFEST_NAME
from textscanner.errors import UserError


def test_records_survive_a_round_trip(tmp_path, words):
    records = [*words[:10], schema.WordRecord(b"bytes", "né", None, "x", case_known=False)]
    uri = write_dataset(str(tmp_path / "set"), records)
    read = list(read_records(uri))
    assert [(r.image, r.text, r.source) for r in read] == [(r.image, r.text, r.source) for r in records]
    for a, b in zip(read, records, strict=True):
        assert (a.quads is None) == (b.quads is None)
        if b.quads is not None:
            np.testing.assert_array_equal(a.quads, b.quads)
    assert [r.case_known for r in read] == [True] * 10 + [False]
    manifest = read_manifest(uri)
    assert manifest.num_rows == 11
    assert sum(s.num_with_quads for s in manifest.shards) == 10
    assert sum(manifest.characters.values()) == sum(len(r.text) for r in records)


def test_row_groups_match_the_manifest(tmp_path, words):
    records = [dataclasses.replace(words[i % 8], source=str(i)) for i in range(ROW_GROUP_ROWS + 5)]
    uri = write_dataset(str(tmp_path / "set"), records, num_shards=1)
    (shard,) = read_manifest(uri).shards
    assert [group.num_rows for group in shard.row_groups] == [ROW_GROUP_ROWS, 5]
    assert [read_row_group(uri, ref).num_rows for ref in shard.refs()] == [ROW_GROUP_ROWS, 5]


def test_the_same_records_give_the_same_bytes(tmp_path, words):
    a, b = (write_shard(str(tmp_path / name), "0", words[:5]) for name in "ab")
    assert a == b


def test_a_folder_without_a_manifest_is_not_a_data_set(tmp_path, words):
    uri = str(tmp_path / "set")
    infos = [write_shard(uri, "0", words[:3])]
    with pytest.raises(UserError, match="is not a prepared data set"):
        read_manifest(uri)
    prepare_destination(uri)  # shards alone may be overwritten
    write_manifest(uri, infos, reject_counts={}, origin={})
    with pytest.raises(UserError, match="overwrite"):
        prepare_destination(uri)
    prepare_destination(uri, overwrite=True)
    with pytest.raises(UserError, match="is not a prepared data set"):
        read_manifest(uri)


def test_a_damaged_shard_and_an_old_manifest_are_named(tmp_path, words):
    uri = write_dataset(str(tmp_path / "set"), words[:4], num_shards=1)
    shard = tmp_path / "set" / "shard-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-20])
    (ref,) = read_manifest(uri).shards[0].refs()
    with pytest.raises(UserError, match=r"shard-00000\.parquet"):
        read_row_group(uri, ref)
    path = tmp_path / "set" / DATASET_MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 1}))
    with pytest.raises(UserError, match=r"schema version 1, .*: prepare the data set again, or render it again"):
        read_manifest(uri)


@pytest.mark.parametrize(
    "damage", [b'{"schema_version": 1', b"\xff\xfe", b"[1]", b"{}", b"", b"null", b"[" * 100_000, b'{"a": 1e999999}']
)
def test_a_damaged_manifest_is_named(words, tmp_path, damage):
    uri = write_dataset(str(tmp_path / "set"), words[:4], num_shards=1)
    whole = (tmp_path / "set" / DATASET_MANIFEST_NAME).read_bytes()
    (tmp_path / "set" / DATASET_MANIFEST_NAME).write_bytes(damage)
    with pytest.raises(UserError, match=r"manifest\.json (is damaged|has schema version None)"):
        read_manifest(uri)
    (tmp_path / "set" / DATASET_MANIFEST_NAME).write_bytes(whole)
    assert read_manifest(uri).num_rows == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../shard-0.parquet"},
        {"name": "/etc/passwd"},
        {"name": "shard-0.parquet/../../x"},
        {"name": None},
        {"num_bytes": 10},
        {"num_rows": 5},
        {"num_rows": -1},
        {"num_with_quads": "4"},
        {"sha256": "../../x"},
        {"characters": {"a": "b"}},
        {"characters": 7},
        {"row_groups": [{"num_rows": 4, "start": 4, "stop": 2**70, "sha256": "0" * 64}]},
        {"row_groups": [{"num_rows": 4, "start": -4, "stop": 9, "sha256": "0" * 64}]},
        {"row_groups": [{"num_rows": 4, "start": 4, "stop": 9, "sha256": "0"}]},
        {"row_groups": 3},
    ],
)
def test_an_impossible_shard_is_refused_where_the_manifest_is_read(words, tmp_path, changes):
    uri = write_dataset(str(tmp_path / "set"), words[:4], num_shards=1)
    path = tmp_path / "set" / DATASET_MANIFEST_NAME
    content = json.loads(path.read_text())
    content["shards"][0] |= changes
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        read_manifest(uri)


def test_a_manifest_that_could_not_be_read_is_not_written(words, tmp_path, monkeypatch):
    uri = write_dataset(str(tmp_path / "set"), words[:4], num_shards=1)
    path = tmp_path / "set" / DATASET_MANIFEST_NAME
    infos = list(read_manifest(uri).shards)
    write_manifest(uri, infos, reject_counts={}, origin={})
    num_bytes = path.stat().st_size
    monkeypatch.setattr(shards, "MAX_MANIFEST_BYTES", num_bytes)
    write_manifest(uri, infos, reject_counts={}, origin={})
    assert read_manifest(uri).num_rows == 4
    path.unlink()
    monkeypatch.setattr(shards, "MAX_MANIFEST_BYTES", num_bytes - 1)
    with pytest.raises(UserError, match=r"for 4 rows: must be at most [\d,]+ bytes, so write the rows as several"):
        write_manifest(uri, infos, reject_counts={}, origin={})
    assert not path.exists()


def test_the_size_limit_of_manifests_is_that_of_hundreds_of_millions_of_rows():
    group = shards.RowGroup(ROW_GROUP_ROWS, 10**8, 10**8, "0" * 64)
    num_bytes = len(shards.manifest_json(dataclasses.asdict(group))) + 1
    assert shards.MAX_MANIFEST_BYTES / num_bytes * ROW_GROUP_ROWS > 500e6


def test_a_footer_that_describes_another_file_allocates_nothing(words, tmp_path):
    """The manifest says that the shard has a terabyte."""
    uri = write_dataset(str(tmp_path / "set"), words[:4], num_shards=1)
    (ref,) = read_manifest(uri).shards[0].refs()
    with pytest.raises(UserError, match=r"shard-00000\.parquet"):
        read_row_group(uri, dataclasses.replace(ref, shard_bytes=1 << 40))
