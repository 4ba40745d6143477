"""What a storage failure means is decided by the server's code and status, never by the text around them."""

import pytest
from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    EndpointConnectionError,
    MetadataRetrievalError,
    NoCredentialsError,
    ParamValidationError,
)

from cluster.errors import NotFoundError, StorageError
from cluster.storage.s3_errors import ErrorKind, classify, error_message, server_answer
from textscanner.errors import UserError

URI = "s3://bucket/403/AccessDenied/NoSuchBucket"


def boto_error(code: str, status: int) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": URI}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject"
    )


def pyarrow_error(code: str) -> OSError:
    """As pyarrow words it; the key is made of codes."""
    return OSError(
        "When getting information for key '403/AWS Error ACCESS_DENIED/NO_SUCH_BUCKET' in bucket 'bucket': "
        f"AWS Error {code} during HeadObject operation: No response body."
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (boto_error("NoSuchKey", 404), ErrorKind.MISSING),
        (boto_error("404", 404), ErrorKind.MISSING),  # HEAD answers have no body, so boto3 has the status only
        (boto_error("NoSuchBucket", 404), ErrorKind.NO_BUCKET),
        (boto_error("AccessDenied", 403), ErrorKind.DENIED),
        (boto_error("403", 403), ErrorKind.DENIED),
        (boto_error("SignatureDoesNotMatch", 403), ErrorKind.DENIED),
        (boto_error("ExpiredToken", 400), ErrorKind.DENIED),
        (boto_error("InvalidArgument", 400), ErrorKind.PERMANENT),
        (boto_error("InvalidRange", 416), ErrorKind.PERMANENT),
        (boto_error("RequestTimeout", 400), ErrorKind.TRANSIENT),
        (boto_error("RequestTimeTooSkewed", 403), ErrorKind.TRANSIENT),
        (boto_error("ConditionalRequestConflict", 409), ErrorKind.TRANSIENT),
        (boto_error("SlowDown", 503), ErrorKind.TRANSIENT),
        (boto_error("InternalError", 500), ErrorKind.TRANSIENT),
        (boto_error("Throttling", 400), ErrorKind.TRANSIENT),  # of the service that issues credentials
        (boto_error("ThrottlingException", 400), ErrorKind.TRANSIENT),
        (boto_error("IDPCommunicationError", 400), ErrorKind.TRANSIENT),
        (boto_error("TooManyRequestsException", 403), ErrorKind.TRANSIENT),
        (CredentialRetrievalError(provider="custom-process", error_msg="busy"), ErrorKind.TRANSIENT),
        (MetadataRetrievalError(error_msg="no answer"), ErrorKind.TRANSIENT),
        (pyarrow_error("ACCESS_DENIED"), ErrorKind.DENIED),
        (pyarrow_error("NO_SUCH_BUCKET"), ErrorKind.NO_BUCKET),
        (pyarrow_error("INVALID_ACCESS_KEY_ID"), ErrorKind.DENIED),
        (pyarrow_error("RESOURCE_NOT_FOUND"), ErrorKind.MISSING),
        (pyarrow_error("UNKNOWN (HTTP status 400)"), ErrorKind.PERMANENT),
        (pyarrow_error("UNKNOWN (HTTP status 503)"), ErrorKind.TRANSIENT),
        (pyarrow_error("NETWORK_CONNECTION"), ErrorKind.TRANSIENT),
        (ConnectionResetError(URI), ErrorKind.TRANSIENT),
        (EndpointConnectionError(endpoint_url=URI), ErrorKind.TRANSIENT),
        (NoCredentialsError(), ErrorKind.NO_CREDENTIALS),
        (ParamValidationError(report=URI), ErrorKind.PERMANENT),
        (FileNotFoundError(URI), ErrorKind.MISSING),
        (NotFoundError(URI), ErrorKind.MISSING),
        (IsADirectoryError(URI), ErrorKind.NOT_A_FILE),
        (PermissionError(URI), ErrorKind.PERMANENT),
        (StorageError(URI), ErrorKind.PERMANENT),
        (UserError(URI), ErrorKind.UNRELATED),
        (TypeError(URI), ErrorKind.UNRELATED),
    ],
    ids=lambda value: value.name if isinstance(value, ErrorKind) else None,
)
def test_the_answer_decides_and_not_the_objects_name(error, kind):
    assert classify(error) is kind


def test_an_error_without_an_answer_has_neither_code_nor_status():
    assert server_answer(OSError("AWS Error ACCESS_DENIED")) == ("", 0)
    assert server_answer(boto_error("SlowDown", 503)) == ("SlowDown", 503)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ErrorKind.MISSING, f"{URI} does not exist"),
        (ErrorKind.NO_BUCKET, "http://localhost:1 has no bucket 'bucket': check the name"),
        (ErrorKind.DENIED, "access denied by http://localhost:1: check permissions and credentials"),
        (ErrorKind.NO_CREDENTIALS, "no AWS credentials found: set AWS_ACCESS_KEY_ID"),
        (ErrorKind.TRANSIENT, "request to http://localhost:1 failed: first line"),
    ],
)
def test_messages_name_the_server_the_reason_and_the_remedy(kind, message, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://localhost:1")
    assert message in error_message(URI, kind, OSError("first line\nsecond line"))


def test_errors_of_a_disk_do_not_name_a_server():
    assert error_message("/a/b", ErrorKind.PERMANENT, PermissionError("not allowed")) == "/a/b: not allowed"


def test_passwords_in_urls_are_not_shown(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://user:secret@localhost:1")
    error = OSError("Could not connect to http://user:secret@localhost:1/bucket")
    for kind in ErrorKind:
        assert "secret" not in error_message(URI, kind, error)
