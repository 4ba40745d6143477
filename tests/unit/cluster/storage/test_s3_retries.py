"""What is retried before and after a server's first answer, and the line that says so."""

import re
import time

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from cluster.errors import StorageError
from cluster.storage import s3_retries
from cluster.storage.s3_retries import ensure_answer, has_answered, with_retries
from cluster.storage.s3_settings import ANSWERED, StorageSettings

SETTINGS = StorageSettings(endpoint="http://user:secret@127.0.0.1:1", deadline_s=0.5)
UNKNOWN = StorageSettings(endpoint="http://no-such-host.invalid:9000", deadline_s=30)
LOST = EndpointConnectionError(endpoint_url="http://127.0.0.1:1")
REFUSED = ClientError({"Error": {"Code": "403"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "HeadBucket")


@pytest.fixture(autouse=True)
def no_answers_yet(monkeypatch):
    monkeypatch.setattr(s3_retries, "_answered", set())
    monkeypatch.setattr(s3_retries, "_notices", s3_retries._Notices())
    monkeypatch.delenv(ANSWERED, raising=False)


def failing(*errors):
    """An operation that raises these errors in turn, then returns."""
    remaining = list(errors)

    def operation():
        if remaining:
            raise remaining.pop(0)
        return "done"

    return operation


def test_an_unknown_host_fails_at_once_before_the_first_answer():
    begin_s = time.monotonic()
    with pytest.raises(StorageError, match=r"^the host of http://no-such-host.invalid:9000 is unknown: check AWS_"):
        with_retries(failing(LOST), UNKNOWN)
    assert time.monotonic() - begin_s < 10


def test_a_resolver_that_does_not_answer_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(s3_retries, "LOOKUP_TIMEOUT_S", 0.1)
    monkeypatch.setattr(s3_retries.socket, "getaddrinfo", lambda *_: time.sleep(5))
    begin_s = time.monotonic()
    with pytest.raises(StorageError, match="is unknown"):
        with_retries(failing(), UNKNOWN)
    assert time.monotonic() - begin_s < 3


def test_missing_credentials_fail_at_once_before_the_first_answer():
    with pytest.raises(NoCredentialsError):
        with_retries(failing(NoCredentialsError()), SETTINGS)


def test_both_are_retried_once_the_server_has_answered(monkeypatch):
    assert with_retries(failing(), SETTINGS) == "done"
    assert with_retries(failing(NoCredentialsError()), SETTINGS) == "done"
    monkeypatch.setattr(s3_retries.socket, "getaddrinfo", failing(OSError("no such name")))
    assert with_retries(failing(LOST), SETTINGS) == "done"


def test_a_refusal_is_an_answer():
    ensure_answer(failing(REFUSED), SETTINGS)
    assert has_answered(SETTINGS)


def test_processes_that_ray_starts_have_had_the_drivers_answer(monkeypatch):
    monkeypatch.setenv(ANSWERED, "1")
    assert with_retries(failing(NoCredentialsError(), LOST), UNKNOWN) == "done"


def test_one_line_says_what_is_retried_and_until_when(capsys):
    for _ in range(2):
        with pytest.raises(EndpointConnectionError):
            with_retries(failing(*[LOST] * 100), SETTINGS)
    (first, *more) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"http://\*\*\*@127.0.0.1:1: Could not connect .*; retrying until \d\d:\d\d:\d\d", first), first
    assert len(more) <= 1  # one per interruption


def test_each_interruption_has_its_line(monkeypatch, capsys):
    """Also if the second one begins before the deadline of the first."""
    monkeypatch.setattr(s3_retries, "NOTICE_AFTER_S", 0.0)
    settings = StorageSettings(endpoint="http://127.0.0.1:1", deadline_s=60)
    for _ in range(2):
        with_retries(failing(LOST, LOST), settings)
    assert capsys.readouterr().err.count("retrying until") == 2


def test_a_short_interruption_is_not_worth_a_line(capsys):
    with_retries(failing(LOST), StorageSettings(endpoint="http://127.0.0.1:1", deadline_s=60))
    assert capsys.readouterr().err == ""


def test_a_worker_sends_the_line_to_its_driver(capsys):
    lines = []
    s3_retries.announce_with(lines.append)
    with pytest.raises(EndpointConnectionError):
        with_retries(failing(*[LOST] * 100), SETTINGS)
    assert "retrying until" in lines[0] and capsys.readouterr().err == ""
