"""Classification of storage failures, and their error messages.

`classify` decides from the server's error code and HTTP status, and without an answer from the exception's class; never
from the text around them, which names the object: an object may be called `403.jpg` or `AccessDenied`. `error_message`
words every failure that a storage library raises.
"""

from __future__ import annotations

import enum
import re

from cluster.errors import StorageError, redact
from cluster.storage.s3_settings import StorageSettings


class ErrorKind(enum.Enum):
    """What a failed storage operation means for the caller."""

    MISSING = "missing"  # the server answered that there is no such file or object
    NOT_A_FILE = "not_a_file"
    NO_BUCKET = "no_bucket"
    DENIED = "denied"  # credentials were sent and refused
    NO_CREDENTIALS = "no_credentials"  # none were found, so no request was sent
    TRANSIENT = "transient"  # the same request may succeed later
    PERMANENT = "permanent"  # it will fail again
    UNRELATED = "unrelated"  # not raised by storage: a bug, to be shown with its traceback


# One spelling for the codes of S3's REST API (boto3: NoSuchBucket) and of the AWS C++ SDK (pyarrow: NO_SUCH_BUCKET).
_KIND_BY_CODE = {
    "nosuchbucket": ErrorKind.NO_BUCKET,
    "nosuchkey": ErrorKind.MISSING,
    "resourcenotfound": ErrorKind.MISSING,
    "accessdenied": ErrorKind.DENIED,
    "expiredtoken": ErrorKind.DENIED,
    "invalidaccesskeyid": ErrorKind.DENIED,
    "invalidsignature": ErrorKind.DENIED,
    "invalidtoken": ErrorKind.DENIED,
    "missingauthenticationtoken": ErrorKind.DENIED,
    "signaturedoesnotmatch": ErrorKind.DENIED,
    "unrecognizedclient": ErrorKind.DENIED,
    # Answered with status 400 or 403, although a retry may succeed. The last ones come from the service that issues
    # credentials (STS), when many workers start at once.
    "requesttimeout": ErrorKind.TRANSIENT,
    "requesttimetooskewed": ErrorKind.TRANSIENT,
    "slowdown": ErrorKind.TRANSIENT,
    "bandwidthlimitexceeded": ErrorKind.TRANSIENT,
    "idpcommunicationerror": ErrorKind.TRANSIENT,
    "requestlimitexceeded": ErrorKind.TRANSIENT,
    "requestthrottled": ErrorKind.TRANSIENT,
    "requestthrottledexception": ErrorKind.TRANSIENT,
    "throttled": ErrorKind.TRANSIENT,
    "throttledexception": ErrorKind.TRANSIENT,
    "throttling": ErrorKind.TRANSIENT,
    "throttlingexception": ErrorKind.TRANSIENT,
    "toomanyrequests": ErrorKind.TRANSIENT,
    "toomanyrequestsexception": ErrorKind.TRANSIENT,
}
_KIND_BY_STATUS = {
    401: ErrorKind.DENIED,
    403: ErrorKind.DENIED,
    404: ErrorKind.MISSING,
    408: ErrorKind.TRANSIENT,  # request timeout
    409: ErrorKind.TRANSIENT,  # another write to the same object is in progress
    429: ErrorKind.TRANSIENT,  # rate limit
}

# pyarrow raises OSError "When ... key 'K' in bucket 'B': AWS Error CODE during OPERATION operation: MESSAGE".
_PYARROW_ERROR = re.compile(r"AWS Error (\w+)(?: \(HTTP status (\d+)\))? during \w+ operation")


def classify(error: BaseException) -> ErrorKind:
    """What a failure of the local disk, boto3 or pyarrow means.

    An OSError without a server's answer counts as transient: a lost connection, a timeout.
    """
    if isinstance(error, FileNotFoundError):
        return ErrorKind.MISSING
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return ErrorKind.NOT_A_FILE
    if isinstance(error, StorageError | PermissionError):
        return ErrorKind.PERMANENT
    code, status = server_answer(error)
    if code or status:
        return _kind_of_answer(code, status)
    if isinstance(error, OSError):
        return ErrorKind.TRANSIENT
    return _kind_of_class(type(error))


def _kind_of_answer(code: str, status: int) -> ErrorKind:
    kind = _KIND_BY_CODE.get(code.replace("_", "").lower()) or _KIND_BY_STATUS.get(status)
    if kind is None:
        kind = ErrorKind.PERMANENT if 0 < status < 500 else ErrorKind.TRANSIENT
    return kind


def _kind_of_class(error_class: type[BaseException]) -> ErrorKind:
    """By name: importing botocore costs start-up time, and a run on a local disk never needs it."""
    if error_class.__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return ErrorKind.NO_CREDENTIALS
    if error_class.__name__ == "ParamValidationError":
        return ErrorKind.PERMANENT  # for example an invalid bucket name: no request was sent
    library = error_class.__module__.partition(".")[0]
    if library in ("botocore", "urllib3"):
        return ErrorKind.TRANSIENT  # no answer: connection refused or reset, timeout, truncated body
    return ErrorKind.PERMANENT if library == "boto3" else ErrorKind.UNRELATED


def server_answer(error: BaseException) -> tuple[str, int]:
    """The server's error code and HTTP status in an exception of boto3 or pyarrow; "" and 0 where it carries none."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        code = str(response.get("Error", {}).get("Code", ""))
        return code, int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    match = _PYARROW_ERROR.search(str(error)) if isinstance(error, OSError) else None
    return (match[1], int(match[2] or 0)) if match else ("", 0)


def error_message(uri: str, kind: ErrorKind, error: BaseException) -> str:
    """The message for the user: what failed, why, and the remedy where there is one."""
    if kind is ErrorKind.MISSING:
        return f"{uri} does not exist"
    if kind is ErrorKind.NOT_A_FILE:
        return f"{uri} is not a file"
    reason = error_reason(error)
    if not uri.startswith("s3://"):
        return f"{uri}: {reason}"
    server = StorageSettings.from_environment().server
    if kind is ErrorKind.NO_BUCKET:
        return f"{uri}: {server} has no bucket {bucket_of(uri)!r}: check the name, or create the bucket"
    if kind is ErrorKind.NO_CREDENTIALS:
        return f"{uri}: no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if kind is ErrorKind.DENIED:
        return f"{uri}: access denied by {server}: check permissions and credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE)"
    return f"{uri}: request to {server} failed: {reason}"


def error_reason(error: BaseException) -> str:
    """The first line of an error's text, without passwords; the name of its class if it has none."""
    return redact((str(error).strip() or type(error).__name__).splitlines()[0][:300])


def bucket_of(uri: str) -> str:
    """The bucket of an `s3://bucket/key` URI."""
    return uri.removeprefix("s3://").partition("/")[0]
