"""Locations on a local disk; those in a bucket are tested in tests/storage against a real server."""

import concurrent.futures

import pytest

from cluster.errors import NotFoundError, StorageError
from cluster.storage.location import LocalLocation, S3Location, absolute_uri, fetch_file, open_uri


@pytest.mark.parametrize("uri", ["gs://bucket/x", "s3://"])
def test_unsupported_uris_are_refused(uri):
    with pytest.raises(ValueError, match=uri.split(":", maxsplit=1)[0]):
        open_uri(uri)


@pytest.mark.parametrize(
    ("uri", "location_class", "path"),
    [
        ("file:///a/b/", LocalLocation, "/a/b"),
        ("/a/b", LocalLocation, "/a/b"),
        ("s3://bucket/a/b/", S3Location, "bucket/a/b"),
    ],
)
def test_the_scheme_decides_the_implementation(uri, location_class, path):
    location = open_uri(uri)
    assert isinstance(location, location_class) and location.path == path
    child = location.join("c", "d.txt")
    assert isinstance(child, location_class) and child.path == f"{path}/c/d.txt"
    assert child.uri == f"{uri.rstrip('/')}/c/d.txt"


def test_a_relative_path_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_uri("runs") == open_uri("runs").path == str(tmp_path / "runs")
    assert absolute_uri("s3://bucket/x") == "s3://bucket/x"


def test_files_are_written_read_listed_and_deleted(tmp_path):
    root = open_uri(str(tmp_path / "root"))
    assert root.names() == [] and not root.exists()
    root.join("a", "b.txt").write_bytes(b"0123456789")
    root.join("c.txt").write_bytes(b"")
    assert root.names() == [("a", True), ("c.txt", False)]
    assert list(root.walk()) == ["a/b.txt", "c.txt"]
    file = root.join("a", "b.txt")
    assert (file.size(), file.read_bytes(2, 5)) == (10, b"234")
    assert fetch_file(file.uri) == file.path
    with file.open() as content:
        content.seek(-3, 2)
        assert content.read() == b"789"
    root.join("a").delete_tree()
    root.join("c.txt").delete()
    root.join("c.txt").delete()  # nothing to delete is no error
    assert list(root.walk()) == []


def test_a_missing_file_and_a_short_file_are_named(tmp_path):
    location = open_uri(str(tmp_path)).join("nothing")
    for read in (location.read_bytes, location.open, location.size, location.version):
        with pytest.raises(NotFoundError, match="nothing does not exist"):
            read()
    with pytest.raises(NotFoundError, match="is not a file"):
        open_uri(str(tmp_path)).read_bytes()
    location.write_bytes(b"abc")
    with pytest.raises(StorageError, match="nothing ends at byte 3, but bytes 1-5 were requested"):
        location.read_bytes(1, 5)


def test_concurrent_create_has_one_winner(tmp_path):
    location = open_uri(str(tmp_path)).join("claimed.json")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda i: location.write_new(b"%d" % i), range(16)))
    assert sum(won) == 1
    assert location.read_bytes() == b"%d" % won.index(True)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    location = open_uri(f"file://{tmp_path}").join("a", "file.txt")
    location.write_bytes(b"old")
    with pytest.raises(TypeError):
        location.write_bytes(None)
    assert location.read_bytes() == b"old"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file.txt"]


def test_a_whole_bucket_is_never_deleted():
    with pytest.raises(StorageError, match="is a whole bucket"):
        open_uri("s3://bucket").delete_tree()


@pytest.mark.parametrize(
    ("folder", "reason"), [("/proc/x", r"No such file or directory \(/proc/x\)"), ("/dev/null/x", "Not a directory")]
)
def test_a_folder_that_cannot_be_created_is_the_reason_why_a_file_is_not_written(folder, reason):
    location = open_uri(folder).join("first", "config.json")
    for write in (location.write_bytes, location.write_new):
        with pytest.raises(StorageError, match=rf"^{folder}/first/config.json cannot be written: {reason}"):
            write(b"{}")
