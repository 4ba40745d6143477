"""LMDB, Parquet and tar shards: damage and missing entries are counted, the rest is read."""

import gzip
import io
import tarfile
import tracemalloc

import lmdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.data.importers import packed
from cluster.data.importers.registry import open_source
from tests import formats
from textscanner.data.annotations import Reject, Word
from textscanner.errors import UserError


def test_missing_keys_of_an_lmdb_are_counted(seven_words, tmp_path):
    formats.lmdb_file(tmp_path, seven_words)
    with lmdb.open(str(tmp_path)) as environment, environment.begin(write=True) as transaction:
        transaction.delete(b"label-000000002")
        transaction.delete(b"image-000000003")
    rows = formats.read_all(open_source(str(tmp_path)))
    assert isinstance(rows[1], Reject) and rows[2].image is None and len(rows) == len(seven_words)


@pytest.mark.parametrize("value", [b"999999999", b"9" * 30, b"9" * 5000, b"-1", b"\xb2"])
def test_a_number_of_samples_that_the_file_cannot_have_is_refused(seven_words, tmp_path, value):
    formats.lmdb_file(tmp_path, seven_words)
    with lmdb.open(str(tmp_path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"num-samples", value)
    with pytest.raises(UserError, match="num-samples"):
        open_source(str(tmp_path)).count()


@pytest.mark.parametrize("path", ["../secret.jpg", "/../secret.jpg", "a" * 300, "a\0b"])
def test_a_parquet_path_names_no_file_outside_its_folder(seven_words, tmp_path, path):
    (tmp_path / "secret.jpg").write_bytes(seven_words[0].image)
    (tmp_path / "data").mkdir()
    images = pa.array([{"bytes": None, "path": path}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": images, "text": ["secret"]}), tmp_path / "data" / "train.parquet")
    (row,) = formats.read_all(open_source(str(tmp_path / "data")))
    assert isinstance(row, Reject) or row.image is None


def write_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def test_a_tar_member_larger_than_the_limit_is_not_read(seven_words, tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "MAX_FILE_BYTES", 1 << 20)
    image = seven_words[0].image
    members = [("a.jpg", bytes((1 << 20) + 1)), ("a.txt", b"one"), ("b.jpg", image), ("b.txt", b"two")]
    write_tar(tmp_path / "x.tar.gz", members, "w:gz")
    one, two = formats.read_all(open_source(str(tmp_path)))
    assert (one.text, one.image) == ("one", b"")  # counted as an image that cannot be decoded
    assert (two.text, two.image) == ("two", image)


def test_tar_headers_that_state_gigabytes_are_not_read(tmp_path):
    """tarfile reads a member's extended header as a whole; a gigabyte of zeros is a megabyte of gzip."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    with gzip.open(tmp_path / "x.tar.gz", "wb", 1) as file:
        file.write(header.tobuf())
        for _ in range(40):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        (row,) = formats.read_all(open_source(str(tmp_path)))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert isinstance(row, Reject) and "states 1,073,741,824 bytes" in row.detail


@pytest.mark.parametrize("mode", ["w:bz2", "w:xz"])
def test_tars_whose_blocks_inflate_without_limit_are_not_unpacked(tmp_path, mode):
    write_tar(tmp_path / "x.tar", [("a.txt", b"word")], mode)
    (row,) = formats.read_all(open_source(str(tmp_path)))
    assert isinstance(row, Reject)


def test_a_gzip_header_that_ends_early_is_a_bad_row(tmp_path):
    """Found by tests/fuzz: tarfile raises a TypeError."""
    (tmp_path / "x.tar.gz").write_bytes(b"\x1f\x8b\x08")
    (row,) = formats.read_all(open_source(str(tmp_path)))
    assert isinstance(row, Reject)


def test_a_gzipped_tar_is_recognized_by_its_content(seven_words, tmp_path):
    write_tar(tmp_path / "x.tar", [("a.jpg", seven_words[0].image), ("a.txt", b"word")], "w:gz")
    (row,) = formats.read_all(open_source(str(tmp_path)))
    assert (row.text, row.image) == ("word", seven_words[0].image)


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
