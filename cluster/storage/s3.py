"""Access to S3 buckets: one boto3 client and one pyarrow filesystem, both with retries.

boto3 transfers the data: ranged reads in one request each, atomic and conditional puts, removal of interrupted uploads.
Ray Train is given a pyarrow filesystem on top of it. The settings come from environment variables (`s3_settings.py`),
the credentials only from the AWS default chain (environment, profile, instance role), which every process resolves for
itself. The filesystem pickles as its settings, so that no secret leaves the process: a pickled
`pyarrow.fs.S3FileSystem` contains it in clear text.

Every operation is retried (`s3_retries.py`) until it succeeds, cannot succeed, or its deadline has passed. Then
`translate_errors` turns the failure into a StorageError (`s3_errors.py` classifies it and writes the message).
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import io
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeVar

import pyarrow.fs

from cluster.errors import FileSizeError, NotFoundError, StorageError
from cluster.storage.s3_errors import ErrorKind, bucket_of, classify, error_message, server_answer
from cluster.storage.s3_retries import ensure_answer, with_retries
from cluster.storage.s3_settings import StorageSettings

T = TypeVar("T")
RANGE_BYTES = 4 << 20  # read-ahead of files that are read sequentially
SPOOL_BYTES = 64 << 20  # of a file being written, held in memory before it spills to disk


def s3_filesystem(settings: StorageSettings | None = None) -> pyarrow.fs.FileSystem:
    """The pyarrow filesystem for these settings (default: from the environment), cached per process."""
    return _filesystem(settings or StorageSettings.from_environment())


@functools.lru_cache(maxsize=8)
def _filesystem(settings: StorageSettings) -> pyarrow.fs.FileSystem:
    return pyarrow.fs.PyFileSystem(_RetryingHandler(settings))


def s3_client(settings: StorageSettings | None = None) -> Any:
    """The boto3 client for these settings (default: from the environment), cached per process. It is thread-safe."""
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
        retries={"mode": "standard", "max_attempts": 2},  # `with_retries` does the rest, within a deadline
        s3={"addressing_style": settings.addressing},
        request_checksum_calculation=settings.checksums,
        **options,
    )
    session = boto3.session.Session()
    return session.client("s3", endpoint_url=settings.endpoint, region_name=settings.region, config=config)


def get_object(
    path: str,
    start: int = 0,
    stop: int | None = None,
    settings: StorageSettings | None = None,
    limit_bytes: int | None = None,
) -> bytes:
    """Bytes `start:stop` of the object `bucket/key`, in one request.

    Raises:
      FileSizeError: the object ends before `stop`, or is larger than `limit_bytes`.
      OSError or botocore's errors: as `with_retries`.
    """
    settings = settings or StorageSettings.from_environment()
    bucket, _, key = path.partition("/")
    is_whole = start == 0 and stop is None
    byte_range = {} if is_whole else {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}

    def get() -> bytes:
        answer = _client(settings).get_object(Bucket=bucket, Key=key, **byte_range)
        if limit_bytes is not None and answer["ContentLength"] > limit_bytes:
            answer["Body"].close()
            raise FileSizeError(f"s3://{path} is larger than {limit_bytes:,} bytes, the limit for such a file")
        data: bytes = answer["Body"].read()
        return data

    data = b"" if start == stop else with_retries(get, settings)  # HTTP has no empty range
    if stop is not None and len(data) != stop - start:
        raise FileSizeError(f"s3://{path} ends at byte {start + len(data)}, but bytes {start}-{stop} were requested")
    return data


def put_object(path: str, content: IO[bytes], settings: StorageSettings | None = None) -> None:
    """Writes the object `bucket/key` atomically; large content is uploaded in several parts.

    Raises:
      OSError or botocore's errors: as `with_retries`.
    """
    settings = settings or StorageSettings.from_environment()
    bucket, _, key = path.partition("/")

    def put() -> None:
        content.seek(0)
        _client(settings).upload_fileobj(_NonClosingFile(content), bucket, key)

    with_retries(put, settings)


def put_new_object(path: str, data: bytes) -> bool:
    """Writes the object `bucket/key` if it does not exist, atomically among concurrent writers.

    Returns:
      whether this call created the object.

    Raises:
      OSError or botocore's errors: as `with_retries`.
    """
    bucket, _, key = path.partition("/")
    client = s3_client()

    def put() -> bool:
        try:
            client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
        except client.exceptions.ClientError as error:
            if server_answer(error)[1] != 412:  # precondition failed: the object exists
                raise
            # It may be our own, if the answer to an earlier attempt got lost: compare the content.
            existing: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
            return existing == data
        return True

    return with_retries(put)


def list_keys(bucket: str, prefix: str) -> Iterator[list[str]]:
    """The keys under a prefix in lexicographic order, one list per page of the listing (up to 1,000 keys).

    Raises:
      OSError or botocore's errors: as `with_retries`.
    """
    client = s3_client()
    continuation = {"ContinuationToken": "NextContinuationToken"}
    for page in _pages(client.list_objects_v2, continuation, Bucket=bucket, Prefix=prefix):
        yield [entry["Key"] for entry in page.get("Contents", [])]


def delete_keys(bucket: str, prefix: str) -> None:
    """Deletes all objects under a prefix.

    Raises:
      OSError or botocore's errors: as `with_retries`, also if single objects are not deleted.
    """
    client = s3_client()
    for keys in list_keys(bucket, prefix):
        remaining = keys

        def delete() -> None:
            nonlocal remaining
            if not remaining:
                return
            objects = [{"Key": key} for key in remaining]
            answer = client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
            failures = answer.get("Errors", [])  # the status is 200 all the same
            remaining = [failure["Key"] for failure in failures]
            if failures:
                first = failures[0]
                error = {"Code": first.get("Code", ""), "Message": f"{first['Key']}: {first.get('Message', '')}"}
                raise client.exceptions.ClientError({"Error": error}, "DeleteObjects")

        with_retries(delete)


def abort_multipart_uploads(bucket: str, prefix: str, min_age_s: float = 0.0) -> int:
    """Aborts unfinished multipart uploads under a prefix: they are billed and appear in no listing of objects.

    Args:
      min_age_s: only those that began at least this long ago.

    Returns:
      the number of aborted uploads.

    Raises:
      OSError or botocore's errors: as `with_retries`.
    """
    client = s3_client()
    latest_begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=min_age_s)
    continuation = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
    aborted = 0
    for page in _pages(client.list_multipart_uploads, continuation, Bucket=bucket, Prefix=prefix):
        for upload in page.get("Uploads", []):
            if min_age_s and upload["Initiated"] > latest_begin:
                continue
            _abort(bucket, upload["Key"], upload["UploadId"])
            aborted += 1
    return aborted


def _abort(bucket: str, key: str, upload_id: str) -> None:
    client = s3_client()

    def abort() -> None:
        try:
            client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
        except client.exceptions.ClientError as error:
            if server_answer(error)[0] != "NoSuchUpload":  # ended in the meantime, or by an attempt of ours
                raise

    with_retries(abort)


def _pages(request: Callable[..., Any], continuation: dict[str, str], **arguments: str) -> Iterator[dict[str, Any]]:
    """The pages of a listing, each with retries of its own; boto3's paginators have none.

    Args:
      continuation: arguments of the next page's request, by the entries of the answer that hold their values.
    """
    while True:
        page: dict[str, Any] = with_retries(functools.partial(request, **arguments))
        yield page
        following = {argument: page[entry] for argument, entry in continuation.items() if page.get(entry)}
        if not page.get("IsTruncated") or not following:
            return
        arguments |= following


class S3File(io.RawIOBase):
    """The object `bucket/key` of `size` bytes as a seekable file; each read is one ranged request with retries."""

    def __init__(self, path: str, size: int, settings: StorageSettings | None = None) -> None:
        super().__init__()
        self._path, self._size, self._settings = path, size, settings
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        stop = min(self._position + len(buffer), self._size)
        if stop <= self._position:
            return 0
        with translate_errors(f"s3://{self._path}"):
            data = get_object(self._path, self._position, stop, self._settings)
        buffer[: len(data)] = data
        self._position = stop
        return len(data)


class _UploadOnClose(tempfile.SpooledTemporaryFile[bytes]):
    """A writable file that is uploaded as the object `bucket/key` when it is closed."""

    def __init__(self, path: str, settings: StorageSettings) -> None:
        super().__init__(max_size=SPOOL_BYTES)
        self._path, self._settings = path, settings

    def close(self) -> None:
        if not self.closed:
            with translate_errors(f"s3://{self._path}"):
                put_object(self._path, self, self._settings)
        super().close()


class _NonClosingFile:
    """Keeps a file open when boto3 closes it after an upload: a retry reads it again."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        pass


@contextlib.contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Turns what a storage library raises into a StorageError whose message is for the user.

    The new error also pickles, which botocore's do not (they hold locks): Ray sends errors between processes.

    Raises:
      NotFoundError: there is no such file, or it is a folder.
      StorageError: any other failure of storage.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        kind = classify(error)
        if kind is ErrorKind.UNRELATED:
            raise
        if kind is ErrorKind.MISSING and uri.startswith("s3://") and not _has_bucket(bucket_of(uri)):
            kind = ErrorKind.NO_BUCKET  # a missing key and a missing bucket get the same answer to a HEAD request
        error_class = NotFoundError if kind in (ErrorKind.MISSING, ErrorKind.NOT_A_FILE) else StorageError
        raise error_class(error_message(uri, kind, error)) from None


def _has_bucket(bucket: str) -> bool:
    """False only if the server says so: without an answer or permission, the bucket is assumed to exist."""
    try:
        s3_client().head_bucket(Bucket=bucket)
    except Exception as error:
        return server_answer(error)[1] != 404
    return True


class _RetryingHandler(pyarrow.fs.FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """pyarrow's S3 filesystem with retries and translated errors; it pickles as its settings.

    The methods are those of `pyarrow.fs.FileSystemHandler`; paths are `bucket/key`.
    """

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

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.settings,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _RetryingHandler) and self.settings == other.settings

    def __hash__(self) -> int:
        return hash(self.settings)

    def _retry(self, path: str, operation: Callable[[], T]) -> T:
        with translate_errors(f"s3://{path}"):
            if bucket := path.partition("/")[0]:
                ensure_answer(lambda: _client(self.settings).head_bucket(Bucket=bucket), self.settings)
            return with_retries(operation, self.settings)

    def get_type_name(self) -> str:
        return "s3"  # Ray builds the URIs of checkpoints from it

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[pyarrow.fs.FileInfo]:
        return self._retry(paths[0] if paths else "", lambda: self._inner.get_file_info(paths))

    def get_file_info_selector(self, selector: pyarrow.fs.FileSelector) -> list[pyarrow.fs.FileInfo]:
        return self._retry(selector.base_dir, lambda: self._inner.get_file_info(selector))

    def create_dir(self, path: str, recursive: bool) -> None:
        """Does nothing: a bucket has no folders."""

    def delete_dir(self, path: str) -> None:
        self._retry(path, lambda: self._inner.delete_dir(path))

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self._retry(path, lambda: self._inner.delete_dir_contents(path, missing_dir_ok=missing_dir_ok))

    def delete_root_dir_contents(self) -> None:
        raise StorageError("deleting the content of all buckets is not allowed")

    def delete_file(self, path: str) -> None:
        self._retry(path, lambda: self._inner.delete_file(path))

    def move(self, src: str, dest: str) -> None:
        self._retry(src, lambda: self._inner.move(src, dest))

    def copy_file(self, src: str, dest: str) -> None:
        self._retry(src, lambda: self._inner.copy_file(src, dest))

    def open_input_stream(self, path: str) -> pyarrow.NativeFile:
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> pyarrow.NativeFile:
        """A file whose reads are retried one by one: pyarrow's own would fail as a whole on the first reset."""
        (info,) = self.get_file_info([path])
        if info.type != pyarrow.fs.FileType.File:
            raise FileNotFoundError(f"s3://{path}")
        file = io.BufferedReader(S3File(path, info.size, self.settings), RANGE_BYTES)
        return pyarrow.PythonFile(file, mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> pyarrow.NativeFile:
        """A file that is uploaded when it is closed, so that the upload can be retried as a whole."""
        return pyarrow.PythonFile(_UploadOnClose(path, self.settings), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> pyarrow.NativeFile:
        raise StorageError(f"s3://{path}: S3 objects cannot be appended to")
