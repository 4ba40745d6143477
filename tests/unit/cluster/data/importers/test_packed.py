"""LMDB, Parquet and tar shards: damage and missing entries are counted, the rest is read."""

import io
import tarfile

import lmdb

from cluster.data.importers.registry import open_source
from tests import formats
from textscanner.data.annotations import Reject, Word


def test_missing_keys_of_an_lmdb_are_counted(seven_words, tmp_path):
    formats.lmdb_file(tmp_path, seven_words)
    with lmdb.open(str(tmp_path)) as environment, environment.begin(write=True) as transaction:
        transaction.delete(b"label-000000002")
        transaction.delete(b"image-000000003")
    rows = formats.read_all(open_source(str(tmp_path)))
    assert isinstance(rows[1], Reject) and rows[2].image is None and len(rows) == len(seven_words)


def test_a_truncated_tar_costs_only_its_rest(seven_words, tmp_path):
    formats.webdataset(tmp_path, seven_words)
    shard = tmp_path / "words-000000.tar"
    with tarfile.open(shard) as archive:
        third_sample = archive.getmembers()[4].offset_data
    shard.write_bytes(shard.read_bytes()[: third_sample + 10])
    rows = formats.read_all(open_source(str(tmp_path)))
    rejects = [row for row in rows if isinstance(row, Reject)]
    assert len(rejects) == 1 and "words-000000.tar" in rejects[0].file
    expected = [record.text for record in [*seven_words[:2], *seven_words[3:]]]
    assert [row.text for row in rows if isinstance(row, Word)] == expected


def test_an_empty_archive_member_is_not_a_sample(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("folder"), io.BytesIO())
    (row,) = formats.read_all(open_source(str(tmp_path)))
    assert isinstance(row, Reject)
