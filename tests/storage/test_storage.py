"""The storage layer against a real S3 server: round trips, error messages, retries, and no secret in a pickle."""

import concurrent.futures
import pickle
import socket
import time

import pytest

from cluster.data.row_group_cache import RowGroupCache
from cluster.data.shards import ROW_GROUP_ROWS, read_manifest, read_records, read_row_group
from cluster.errors import NotFoundError, StorageError
from cluster.storage.location import fetch_file, open_uri
from cluster.storage.s3 import s3_client, s3_filesystem
from tests.factories import write_dataset
from tests.storage.proxy import Proxy

pytestmark = pytest.mark.storage


def test_objects_are_written_read_listed_and_deleted(bucket):
    location = open_uri(bucket).join("a", "file.bin")
    data = bytes(range(256)) * 100
    assert not location.exists() and location.names() == []
    location.write_bytes(data)
    assert location.exists()
    assert location.read_bytes() == data
    assert location.read_bytes(300, 500) == data[300:500]
    open_uri(bucket).join("b").write_bytes(b"")
    assert open_uri(bucket).names() == [("a", True), ("b", False)]
    assert list(open_uri(bucket).walk()) == ["a/file.bin", "b"]
    with location.open() as file:
        file.seek(-500, 2)
        assert file.read(200) == data[-500:-300] and file.read() == data[-300:]
    with open(fetch_file(location.uri), "rb") as copy:
        assert copy.read() == data
    with pytest.raises(NotFoundError, match="nothing does not exist"):
        open_uri(bucket).join("nothing").open()
    open_uri(bucket).join("a").delete_tree()
    assert list(open_uri(bucket).walk()) == ["b"]


def test_concurrent_create_has_one_winner(bucket):
    location = open_uri(bucket).join("manifest.json")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda i: location.write_new(b"%d" % i), range(16)))
    assert sum(won) == 1
    assert location.read_bytes() == b"%d" % won.index(True)


def test_interrupted_uploads_are_aborted(bucket):
    client, name = s3_client(), bucket.removeprefix("s3://")
    root, _, prefix = name.partition("/")
    upload = client.create_multipart_upload(Bucket=root, Key=f"{prefix}/big")
    client.upload_part(Bucket=root, Key=f"{prefix}/big", UploadId=upload["UploadId"], PartNumber=1, Body=b"x" * 100)
    assert open_uri(bucket).abort_uploads() == 1
    assert open_uri(bucket).abort_uploads() == 0
    assert not open_uri(bucket).join("big").exists()


def test_no_secret_is_pickled(bucket, object_store):
    pickled = pickle.dumps(s3_filesystem())
    assert object_store.secret_key.encode() not in pickled
    open_uri(bucket).join("x").write_bytes(b"content")
    filesystem = pickle.loads(pickled)
    assert filesystem == s3_filesystem()
    with filesystem.open_input_stream(f"{bucket.removeprefix('s3://')}/x") as stream:
        assert stream.read() == b"content"


def test_failures_are_storage_errors_with_a_reason(bucket, object_store, monkeypatch):
    missing = open_uri(bucket).join("nothing")
    with pytest.raises(StorageError, match="nothing does not exist"):
        missing.read_bytes()
    with pytest.raises(StorageError, match="has no bucket 'no-such-bucket'"):
        open_uri("s3://no-such-bucket/x").read_bytes()
    with monkeypatch.context() as patched:
        patched.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        patched.setenv("TEXTSCANNER_S3_DEADLINE_S", "19")  # other settings, so another client is made
        location = open_uri(bucket).join("x")
        for operation in (
            lambda: location.write_bytes(b"x"),
            location.exists,
            location.names,
            lambda: location.write_new(b"x"),
        ):
            with pytest.raises(StorageError, match="access denied"):
                operation()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setenv("TEXTSCANNER_S3_DEADLINE_S", "2")
        begin = time.monotonic()
        with pytest.raises(StorageError, match=r"request to http://127\.0\.0\.1:\d+ failed"):
            open_uri(bucket).join("x").read_bytes()
        assert time.monotonic() - begin < 30
    with pytest.raises(ValueError, match="names no bucket"):
        open_uri("s3://")
    with pytest.raises(ValueError, match="scheme 'gs'"):
        open_uri("gs://bucket/x")


def test_connection_resets_are_retried(bucket, object_store, monkeypatch):
    data = bytes(range(256)) * 1024
    with Proxy(("127.0.0.1", object_store.port + 3)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        proxy.reset_probability = 0.03
        for i in range(12):
            location = open_uri(bucket).join(f"{i:02d}")
            location.write_bytes(data[i:])
            assert location.read_bytes(7, 200_000) == data[i:][7:200_000]
        assert len(open_uri(bucket).names()) == 12
        assert proxy.resets > 2


def test_a_server_that_never_answers_fails_at_the_deadline(bucket, object_store, monkeypatch):
    with Proxy(("127.0.0.1", object_store.port + 3)) as proxy:
        proxy.black_hole = True
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        monkeypatch.setenv("TEXTSCANNER_S3_REQUEST_TIMEOUT_S", "1")
        monkeypatch.setenv("TEXTSCANNER_S3_DEADLINE_S", "3")
        location = open_uri(bucket).join("403", "AccessDenied", "NoSuchBucket")  # names must not look like answers
        for operation in (location.read_bytes, location.exists):
            begin = time.monotonic()
            with pytest.raises(StorageError, match=r"request to http.* failed"):
                operation()
            assert time.monotonic() - begin < 20


def test_a_flipped_byte_is_detected_and_its_shard_named(bucket, words):
    uri = write_dataset(f"{bucket}/set", words[:8])
    assert [r.text for r in read_records(uri)] == [r.text for r in words[:8]]
    shard = read_manifest(uri).shards[1]
    location = open_uri(uri).join(shard.name)
    data = bytearray(location.read_bytes())
    data[shard.row_groups[0].start + 50] ^= 1
    location.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=rf"{shard.name}, bytes \d+-\d+: their SHA-256"):
        list(read_records(uri))
    location.write_bytes(bytes(data[:100]))
    with pytest.raises(ValueError, match=shard.name):
        list(read_records(uri))
    location.delete()
    with pytest.raises(ValueError, match=rf"shard {shard.name}: .* does not exist"):
        list(read_records(uri))


def test_a_cached_row_group_is_not_fetched_again(bucket, words, tmp_path):
    uri = write_dataset(f"{bucket}/set", [words[i % 64] for i in range(ROW_GROUP_ROWS + 3)], num_shards=1)
    (shard,) = read_manifest(uri).shards
    cache = RowGroupCache(str(tmp_path / "cache"), 1 << 20)
    tables = [read_row_group(uri, ref, cache) for ref in shard.refs()]
    open_uri(uri).join(shard.name).delete()
    for ref, table in zip(shard.refs(), tables, strict=True):
        assert read_row_group(uri, ref, cache).equals(table)
    with pytest.raises(ValueError, match=shard.name):
        read_row_group(uri, next(shard.refs()))
