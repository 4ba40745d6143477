"""A bucket: settings -> one pyarrow filesystem and one boto3 client; retries; failures as sentences.

boto3 moves the bytes: ranged reads in one request each, atomic and conditional puts, removal of interrupted uploads.
A pyarrow filesystem over it is what Ray Train is given. Settings come from the environment
(`s3_settings.py`); credentials only from AWS' standard chain (environment, profile, instance role),
looked up again in every process. The filesystem pickles as its settings, so no secret travels (a pickled
`pyarrow.fs.S3FileSystem` carries it in clear). Every operation is repeated with jittered back-off until it succeeds,
cannot succeed, or its deadline is over; then one sentence says what failed.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any

import pyarrow.fs
import tenacity

from cluster.errors import NotFoundError, StorageError
from cluster.storage.s3_settings import StorageSettings

RANGE_BYTES = 4 << 20  # read ahead in files that are read from front to back
SPOOL_BYTES = 64 << 20  # of a file that is being written, in memory


def s3_filesystem(settings: StorageSettings | None = None) -> pyarrow.fs.FileSystem:
    """The filesystem of these settings, the environment's by default; one per process and settings."""
    return _filesystem(settings or StorageSettings.from_environment())


@functools.lru_cache(maxsize=8)
def _filesystem(settings: StorageSettings) -> pyarrow.fs.FileSystem:
    return pyarrow.fs.PyFileSystem(_Retrying(settings))


def s3_client(settings: StorageSettings | None = None) -> Any:
    """The boto3 client of these settings; one per process and settings. Safe to use from several threads."""
    return _client(settings or StorageSettings.from_environment())


@functools.lru_cache(maxsize=8)
def _client(settings: StorageSettings) -> Any:
    import boto3
    import botocore
    from botocore.config import Config

    options: dict[str, Any] = {"signature_version": botocore.UNSIGNED} if settings.anonymous else {}
    config = Config(
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.request_timeout_s,
        retries={"mode": "standard", "max_attempts": 2},  # the rest is `with_retries`
        s3={"addressing_style": settings.addressing},
        request_checksum_calculation=settings.checksums,
        **options,
    )
    session = boto3.session.Session()
    return session.client("s3", endpoint_url=settings.endpoint, region_name=settings.region, config=config)


def with_retries(operation: Callable[[], Any], settings: StorageSettings | None = None) -> Any:
    """The operation's result, repeated with jittered exponential back-off while its failure may be transient.

    Raises:
      OSError or botocore's errors: the last failure, when it cannot succeed or the deadline is over.
    """
    settings = settings or StorageSettings.from_environment()
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_delay(settings.deadline_s),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=10),
        retry=tenacity.retry_if_exception(is_transient),
        reraise=True,
    )
    return retrying(operation)


def get_object(path: str, start: int = 0, stop: int | None = None, settings: StorageSettings | None = None) -> bytes:
    """Bytes `start:stop` of the object at `bucket/key`, in one request.

    Raises:
      StorageError: the object ends before `stop`.
      OSError or botocore's errors: as `with_retries`.
    """
    settings = settings or StorageSettings.from_environment()
    bucket, _, key = path.partition("/")
    wanted = {} if start == 0 and stop is None else {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}

    def get() -> bytes:
        return _client(settings).get_object(Bucket=bucket, Key=key, **wanted)["Body"].read()

    data = b"" if start == stop else with_retries(get, settings)
    if stop is not None and len(data) != stop - start:
        raise StorageError(f"s3://{path} ends at byte {start + len(data)}, wanted {start}-{stop}")
    return data


def put_object(path: str, content: IO[bytes], settings: StorageSettings | None = None) -> None:
    """Writes the object at `bucket/key` whole or not at all, large content in several parts.

    Raises:
      OSError or botocore's errors: as `with_retries`.
    """
    settings = settings or StorageSettings.from_environment()
    bucket, _, key = path.partition("/")

    def put() -> None:
        content.seek(0)
        _client(settings).upload_fileobj(_KeptOpen(content), bucket, key)

    with_retries(put, settings)


class S3File(io.RawIOBase):
    """An object of `size` bytes for reading and seeking: each read is one ranged request with its own retries."""

    def __init__(self, path: str, size: int, settings: StorageSettings | None = None) -> None:
        super().__init__()
        self._path, self._size, self._settings = path, size, settings
        self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As any file."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """As any file."""
        stop = min(self._at + len(buffer), self._size)
        if stop <= self._at:
            return 0
        with told(f"s3://{self._path}"):
            data = get_object(self._path, self._at, stop, self._settings)
        buffer[: len(data)] = data
        self._at = stop
        return len(data)


class _Upload(tempfile.SpooledTemporaryFile):
    """What is written becomes the object when it is closed; the put is repeated as a whole."""

    def __init__(self, path: str, settings: StorageSettings) -> None:
        super().__init__(max_size=SPOOL_BYTES)
        self._path, self._settings = path, settings

    def close(self) -> None:
        """Puts the object."""
        if not self.closed:
            with told(f"s3://{self._path}"):
                put_object(self._path, self, self._settings)
        super().close()


class _KeptOpen:
    """A file that stays open when boto3 closes it: the put may have to be repeated."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        """Does nothing."""


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later: not where something is missing, forbidden or malformed."""
    if isinstance(error, StorageError | FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return False
    if _boto_code(error):
        return status_of(error) >= 500 or _boto_code(error) in ("SlowDown", "RequestTimeout", "RequestTimeTooSkewed")
    if isinstance(error, OSError):
        return not (_PERMANENT.search(_code(error)) or _OUT_OF_BOUNDS in str(error))
    return type(error).__module__.startswith(("botocore", "urllib3")) and "Credentials" not in type(error).__name__


@contextlib.contextmanager
def told(uri: str) -> Iterator[None]:
    """Turns what a storage library raises into a StorageError with a sentence for a person.

    Raises:
      StorageError: instead of any of them.
    """
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError:
        raise _missing(uri) from None
    except (IsADirectoryError, NotADirectoryError):
        raise NotFoundError(f"{uri} is not a file") from None
    except Exception as error:
        if status_of(error) == 404 and not _NO_BUCKET.search(_boto_code(error)):
            raise _missing(uri) from None
        if not (isinstance(error, OSError) or type(error).__module__.startswith(("botocore", "boto3", "urllib3"))):
            raise
        raise StorageError(error_message(uri, error)) from None


# pyarrow reports S3 failures as OSError; these words of the AWS SDK mark what no repetition mends.
_PERMANENT = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|NO_SUCH_KEY|RESOURCE_NOT_FOUND|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH"
    r"|INVALID_SIGNATURE|MISSING_AUTHENTICATION_TOKEN|UNRECOGNIZED_CLIENT|EXPIRED_TOKEN|40[0134]"
)
_OUT_OF_BOUNDS = "out of bounds"
_FORBIDDEN = re.compile(r"ACCESS_DENIED|AccessDenied|403|Forbidden|SIGNATURE|Signature|INVALID_ACCESS|InvalidAccessKey")
_NO_BUCKET = re.compile(r"NO_SUCH_BUCKET|NoSuchBucket")
_SDK_CODE = re.compile(r"AWS Error (\w+(?: \(HTTP status \d+\))?)")


def _code(error: BaseException) -> str:
    """What the server calls the failure: not the message around it, where an object may be named 403.jpg."""
    found = _SDK_CODE.search(str(error)) if isinstance(error, OSError) else None
    return found[1] if found else _boto_code(error)


def error_message(uri: str, error: BaseException) -> str:
    """The failure as a sentence."""
    code = _code(error)
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return f"{uri}: no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if _NO_BUCKET.search(code):
        return _no_bucket(uri)
    if _FORBIDDEN.search(code):
        return f"{uri}: access denied by {_server()}: check the credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE) and rights"
    if uri.startswith("s3://"):
        return f"{uri}: {_server()} did not do it: {_first_line(error)}"
    return f"{uri}: {_first_line(error)}"


def _missing(uri: str) -> StorageError:
    if uri.startswith("s3://") and not _has_bucket(_bucket(uri)):
        return StorageError(_no_bucket(uri))
    return NotFoundError(f"{uri} does not exist")


def _no_bucket(uri: str) -> str:
    return f"{uri}: there is no bucket {_bucket(uri)!r} at {_server()}: check the name, or create it"


def _bucket(uri: str) -> str:
    return uri.removeprefix("s3://").partition("/")[0]


def _has_bucket(bucket: str) -> bool:
    """False only where the server says so."""
    try:
        s3_client().head_bucket(Bucket=bucket)
    except Exception as error:
        return status_of(error) != 404
    return True


def _server() -> str:
    return StorageSettings.from_environment().endpoint or "AWS S3"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _boto_code(error: BaseException) -> str:
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def status_of(error: BaseException) -> int:
    """The HTTP status that a botocore error carries, 0 for none."""
    response = getattr(error, "response", None)
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) if isinstance(response, dict) else 0


class _Retrying(pyarrow.fs.FileSystemHandler):
    """A pyarrow S3 filesystem whose operations are repeated, and which pickles as its settings."""

    def __init__(self, settings: StorageSettings) -> None:
        self.settings = settings
        options: dict[str, Any] = {"anonymous": settings.anonymous}
        if settings.region:
            options["region"] = settings.region
        if settings.endpoint:
            options["endpoint_override"] = settings.endpoint
        if settings.addressing == "virtual":
            options["force_virtual_addressing"] = True
        self._inner = pyarrow.fs.S3FileSystem(
            connect_timeout=settings.connect_timeout_s,
            request_timeout=settings.request_timeout_s,
            retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=2),
            **options,
        )

    def __reduce__(self) -> tuple:
        return type(self), (self.settings,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Retrying) and self.settings == other.settings

    def __hash__(self) -> int:
        return hash(self.settings)

    def _try(self, path: str, operation: Callable[[], Any]) -> Any:
        # A sentence pickles; botocore's errors, which hold locks, do not, and Ray ships errors between processes.
        with told(f"s3://{path}"):
            return with_retries(operation, self.settings)

    def get_type_name(self) -> str:
        """Says what it is: URIs of checkpoints are rebuilt from it."""
        return "s3"

    def normalize_path(self, path: str) -> str:
        """S3 paths are what they are."""
        return path

    def get_file_info(self, paths: list[str]) -> list:
        """As pyarrow."""
        return self._try(paths[0] if paths else "", lambda: self._inner.get_file_info(paths))

    def get_file_info_selector(self, selector: pyarrow.fs.FileSelector) -> list:
        """As pyarrow."""
        return self._try(selector.base_dir, lambda: self._inner.get_file_info(selector))

    def create_dir(self, path: str, recursive: bool) -> None:
        """Folders do not exist in a bucket."""

    def delete_dir(self, path: str) -> None:
        """As pyarrow."""
        self._try(path, lambda: self._inner.delete_dir(path))

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        """As pyarrow."""
        self._try(path, lambda: self._inner.delete_dir_contents(path, missing_dir_ok=missing_dir_ok))

    def delete_root_dir_contents(self) -> None:
        """Refused: it would empty every bucket."""
        raise StorageError("deleting every bucket is refused")

    def delete_file(self, path: str) -> None:
        """As pyarrow."""
        self._try(path, lambda: self._inner.delete_file(path))

    def move(self, src: str, dest: str) -> None:
        """As pyarrow."""
        self._try(src, lambda: self._inner.move(src, dest))

    def copy_file(self, src: str, dest: str) -> None:
        """As pyarrow."""
        self._try(src, lambda: self._inner.copy_file(src, dest))

    def open_input_stream(self, path: str) -> pyarrow.NativeFile:
        """As pyarrow, every read repeated on its own."""
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> pyarrow.NativeFile:
        """As pyarrow, every read repeated on its own."""
        (info,) = self.get_file_info([path])
        if info.type != pyarrow.fs.FileType.File:
            raise FileNotFoundError(f"s3://{path}")
        file = io.BufferedReader(S3File(path, info.size, self.settings), RANGE_BYTES)
        return pyarrow.PythonFile(file, mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> pyarrow.NativeFile:
        """As pyarrow; the object appears when the stream is closed."""
        return pyarrow.PythonFile(_Upload(path, self.settings), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> pyarrow.NativeFile:
        """Refused: objects cannot be appended to."""
        raise StorageError(f"s3://{path}: objects cannot be appended to")
