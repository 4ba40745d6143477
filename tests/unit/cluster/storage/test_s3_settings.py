"""Storage settings from environment variables."""

import pytest

from cluster.storage.s3_settings import StorageSettings, passed_on
from textscanner.errors import UserError


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AWS_ENDPOINT_URL_S3", "localhost:9000", "must start with http"),
        ("TEXTSCANNER_S3_ADDRESSING", "dns", "must be one of auto, path, virtual"),
        ("AWS_REQUEST_CHECKSUM_CALCULATION", "never", "must be one of when_supported, when_required"),
        ("TEXTSCANNER_S3_DEADLINE_S", "soon", "must be a number of seconds"),
        ("TEXTSCANNER_S3_REQUEST_TIMEOUT_S", "0", "must be positive"),
    ],
)
def test_wrong_settings_are_named(name, value, message):
    with pytest.raises(ValueError, match=message) as error:
        StorageSettings.from_environment({name: value})
    assert name in str(error.value)


def test_settings_come_from_the_environment_and_secrets_are_not_passed_on(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000")
    monkeypatch.setenv("TEXTSCANNER_S3_DEADLINE_S", "7")
    settings = StorageSettings.from_environment()
    assert (settings.endpoint, settings.deadline_s) == ("http://127.0.0.1:9000", 7.0)
    assert passed_on()["AWS_ENDPOINT_URL_S3"] == "http://127.0.0.1:9000"
    assert "AWS_SECRET_ACCESS_KEY" not in passed_on()


def test_passwords_in_urls_are_neither_passed_on_nor_shown(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://user:pa@ss@127.0.0.1:9000/path")
    assert passed_on()["AWS_ENDPOINT_URL_S3"] == "http://127.0.0.1:9000/path"
    assert StorageSettings.from_environment().server == "http://***@127.0.0.1:9000/path"
    with pytest.raises(UserError, match=r"must start with http") as raised:
        StorageSettings(endpoint="ftp://user:pass@host")
    assert "pass" not in str(raised.value)
