"""Retries of storage operations: what is retried, for how long, and the line that says so.

A server that has answered once is known to exist: whatever fails later is retried until the deadline, name resolution
and credentials included, because resolvers and credential services fail for moments too. Before the first answer these
two are probably a typing error or a missing setting, so they fail at once: the user is still watching. Processes that
Ray starts inherit `ANSWERED`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import TypeVar

import tenacity

from cluster.errors import StorageError
from cluster.storage.s3_errors import ErrorKind, classify, error_reason, server_answer
from cluster.storage.s3_settings import ANSWERED, StorageSettings

T = TypeVar("T")
NOTICE_AFTER_S = 2.0  # shorter interruptions are not worth a line
AWS_URL = "https://s3.amazonaws.com"
LOOKUP_TIMEOUT_S = 8.0


def with_retries(operation: Callable[[], T], settings: StorageSettings | None = None) -> T:
    """Calls `operation` until it succeeds, with jittered exponential back-off after transient failures.

    Raises:
      StorageError: the server's host is unknown.
      OSError or botocore's errors: the last failure, if it cannot succeed later or `settings.deadline_s` has passed.
    """
    settings = settings or StorageSettings.from_environment()
    if not has_answered(settings):
        _check_host(settings)
    announced: list[bool] = []  # one per failure
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_delay(settings.deadline_s),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=10),
        retry=tenacity.retry_if_exception(lambda error: _may_succeed_later(error, settings)),
        before_sleep=lambda state: announced.append(_announce(state, settings)),
        reraise=True,
    )
    result = retrying(operation)
    _answered.add(settings.endpoint)
    if any(announced):
        _notices.end()
    return result


def ensure_answer(request: Callable[[], object], settings: StorageSettings) -> None:
    """Makes `request` with boto3 if the server has not answered yet. For pyarrow, whose failures do not tell missing
    credentials from an interruption.

    Raises:
      StorageError, OSError or botocore's errors: there was no answer. One that refuses the request raises nothing.
    """
    if has_answered(settings):
        return
    try:
        with_retries(request, settings)
    except Exception as error:
        if not server_answer(error)[1]:
            raise


def has_answered(settings: StorageSettings) -> bool:
    """Whether the server has answered this process, or the one that started it."""
    return settings.endpoint in _answered or ANSWERED in os.environ


def _may_succeed_later(error: BaseException, settings: StorageSettings) -> bool:
    if server_answer(error)[1]:
        _answered.add(settings.endpoint)
    kind = classify(error)
    return kind is ErrorKind.TRANSIENT or (kind is ErrorKind.NO_CREDENTIALS and has_answered(settings))


def _check_host(settings: StorageSettings) -> None:
    parts = urllib.parse.urlsplit(settings.endpoint or AWS_URL)
    if parts.scheme in urllib.request.getproxies() or not parts.hostname:
        return  # the proxy resolves names
    # In a thread, because nothing else limits the time of a resolver that does not answer.
    lookup = _HostLookup(parts.hostname)
    lookup.start()
    lookup.join(LOOKUP_TIMEOUT_S)
    if not lookup.is_known:
        raise StorageError(
            f"the host of {settings.server} is unknown: check AWS_ENDPOINT_URL_S3 and the network of this machine"
        )


class _HostLookup(threading.Thread):
    def __init__(self, host: str) -> None:
        super().__init__(daemon=True)
        self._host = host
        self.is_known = False

    def run(self) -> None:
        with contextlib.suppress(OSError):  # socket.gaierror
            socket.getaddrinfo(self._host, None)
            self.is_known = True


def announce_with(write: Callable[[str], None]) -> None:
    """Has the lines about retries of this process written by `write`, and not to stderr, which Ray keeps in a log."""
    _notices.write = write


class _Notices:
    """Writes one line per interruption, however many threads wait for its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until_s = 0.0
        self.write: Callable[[str], None] = _print_line

    def announce(self, message: str, until_s: float) -> None:
        with self._lock:
            if time.time() < self._until_s:
                return
            self._until_s = until_s
        self.write(message)

    def end(self) -> None:
        """An operation that waited has succeeded: the next interruption has a line of its own."""
        with self._lock:
            self._until_s = 0.0


def _print_line(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


_answered: set[str | None] = set()  # endpoints
_notices = _Notices()


def _announce(state: tenacity.RetryCallState, settings: StorageSettings) -> bool:
    """Announces an interruption that has lasted long enough; returns whether it has."""
    failed_s = state.seconds_since_start or 0.0
    error = state.outcome.exception() if state.outcome else None
    if error is None or failed_s + state.upcoming_sleep < min(NOTICE_AFTER_S, settings.deadline_s / 2):
        return False
    until_s = time.time() + settings.deadline_s - failed_s
    clock = time.strftime("%H:%M:%S", time.localtime(until_s))
    _notices.announce(f"{settings.server}: {error_reason(error)}; retrying until {clock}", until_s)
    return True
