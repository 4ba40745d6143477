"""Listing, deleting and aborting in a bucket are retried request by request. The answers are scripted; the real server
is in tests/storage."""

import datetime

import boto3
import pytest
from botocore.stub import Stubber

from cluster.errors import StorageError
from cluster.storage import s3
from cluster.storage.location import open_uri

BUSY = ("SlowDown", 503)


@pytest.fixture
def answer(monkeypatch):
    """A function that scripts the answers of an operation: dicts, or (code, status) of an error."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("TEXTSCANNER_S3_DEADLINE_S", "20")
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
    client = boto3.client("s3", endpoint_url="http://127.0.0.1:1", region_name="us-east-1", **keys)
    monkeypatch.setattr(s3, "s3_client", lambda: client)
    with Stubber(client) as stubber:

        def script(operation, *answers, **expected):
            for content in answers:
                if isinstance(content, tuple):
                    stubber.add_client_error(operation, content[0], http_status_code=content[1])
                else:
                    stubber.add_response(operation, content, expected or None)

        yield script
        stubber.assert_no_pending_responses()


def page(*keys, more=""):
    return {
        "Contents": [{"Key": key} for key in keys],
        "IsTruncated": bool(more),
        **({"NextContinuationToken": more} if more else {}),
    }


def deletion(*keys):
    return {"Objects": [{"Key": key} for key in keys], "Quiet": True}


def test_each_page_of_a_listing_is_retried(answer):
    first = {"Bucket": "bucket", "Prefix": "runs/"}
    answer("list_objects_v2", BUSY, page("runs/a", more="t"), **first)
    answer("list_objects_v2", BUSY, page("runs/b"), ContinuationToken="t", **first)
    assert list(open_uri("s3://bucket/runs").walk()) == ["a", "b"]


def test_objects_that_a_request_did_not_delete_are_deleted_by_the_next(answer):
    failed = {"Errors": [{"Key": "runs/b", "Code": "InternalError", "Message": "try again"}]}
    answer("list_multipart_uploads", BUSY, {})
    answer("list_objects_v2", page("runs/a", "runs/b"))
    answer("delete_objects", BUSY, failed, Bucket="bucket", Delete=deletion("runs/a", "runs/b"))
    answer("delete_objects", {}, Bucket="bucket", Delete=deletion("runs/b"))
    open_uri("s3://bucket/runs").delete_tree()  # the fixture checks that each scripted request was made


def test_an_object_that_may_not_be_deleted_is_a_failure(answer):
    answer("list_multipart_uploads", {})
    answer("list_objects_v2", page("runs/a"))
    answer("delete_objects", {"Errors": [{"Key": "runs/a", "Code": "AccessDenied", "Message": "locked"}]})
    with pytest.raises(StorageError, match="access denied"):
        open_uri("s3://bucket/runs").delete_tree()


def upload_of(key, age_s):
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age_s)
    return {"Key": key, "UploadId": key, "Initiated": begin}


def test_aborting_is_retried_and_an_upload_that_has_ended_is_no_failure(answer):
    answer("list_multipart_uploads", BUSY, {"Uploads": [upload_of("runs/a", 0), upload_of("runs/b", 0)]})
    answer("abort_multipart_upload", BUSY, {}, ("NoSuchUpload", 404))
    assert open_uri("s3://bucket/runs").abort_uploads() == 2


def test_young_uploads_may_be_another_drivers(answer):
    answer("list_multipart_uploads", {"Uploads": [upload_of("runs/a", 60), upload_of("runs/b", 7200)]})
    answer("abort_multipart_upload", {}, Bucket="bucket", Key="runs/b", UploadId="runs/b")
    assert open_uri("s3://bucket/runs").abort_uploads(min_age_s=3600) == 1


def test_a_conditional_write_that_conflicts_is_retried(answer):
    answer("put_object", ("ConditionalRequestConflict", 409), {})
    assert open_uri("s3://bucket/runs/config.json").write_new(b"{}")
