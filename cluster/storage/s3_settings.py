"""Settings of the S3 client, from environment variables. None of them is a secret."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from cluster.errors import redact, without_password
from textscanner.errors import UserError

# Variables that are set on the workers of a remote cluster too. No credentials: nodes have their own.
PASSED_ON = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "TEXTSCANNER_S3_ADDRESSING",
    "TEXTSCANNER_S3_ANONYMOUS",
    "TEXTSCANNER_S3_CONNECT_TIMEOUT_S",
    "TEXTSCANNER_S3_REQUEST_TIMEOUT_S",
    "TEXTSCANNER_S3_DEADLINE_S",
)

ANSWERED = "TEXTSCANNER_S3_ANSWERED"
"""Set in processes that Ray starts: the driver has used storage, so a failure to reach it is an interruption."""

Addressing = Literal["auto", "path", "virtual"]
Checksums = Literal["when_supported", "when_required"]


@dataclasses.dataclass(frozen=True)
class StorageSettings:
    """How to reach a bucket.

    Attributes:
      endpoint: URL of an S3-compatible server; None for AWS.
      region: None for the default of the AWS configuration.
      addressing: `path` puts the bucket into the URL's path, `virtual` into its host name; `auto` uses path-style
        with an endpoint.
      checksums: `when_required` for servers that refuse checksum trailers.
      connect_timeout_s, request_timeout_s: timeouts of one attempt, in seconds.
      deadline_s: time limit for all attempts of one operation, in seconds.
      anonymous: sends no credentials, for public buckets.

    Raises:
      UserError: a value breaks a rule; the message names its environment variable.
    """

    endpoint: str | None = None
    region: str | None = None
    addressing: Addressing = "auto"
    checksums: Checksums = "when_supported"
    connect_timeout_s: float = 5.0
    request_timeout_s: float = 30.0
    deadline_s: float = 120.0
    anonymous: bool = False

    def __post_init__(self) -> None:
        if self.endpoint and not re.match(r"https?://", self.endpoint):
            endpoint = redact(self.endpoint)
            raise UserError(f"AWS_ENDPOINT_URL_S3 is {endpoint!r}: must start with http:// or https://")
        for variable, value, choices in (
            ("TEXTSCANNER_S3_ADDRESSING", self.addressing, get_args(Addressing)),
            ("AWS_REQUEST_CHECKSUM_CALCULATION", self.checksums, get_args(Checksums)),
        ):
            if value not in choices:
                raise UserError(f"{variable} is {value!r}: must be one of {', '.join(choices)}")
        for name in ("connect_timeout_s", "request_timeout_s", "deadline_s"):
            if getattr(self, name) <= 0:
                raise UserError(f"TEXTSCANNER_S3_{name.upper()} is {getattr(self, name)}: must be positive")

    @property
    def server(self) -> str:
        """The server in messages."""
        return redact(self.endpoint) if self.endpoint else "AWS S3"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> StorageSettings:
        """Settings from AWS' standard variables, and from TEXTSCANNER_S3_* where AWS has none.

        Raises:
          UserError: a variable's value breaks a rule.
        """
        values: dict[str, Any] = {
            "endpoint": environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL"),
            "region": environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION"),
            "checksums": environment.get("AWS_REQUEST_CHECKSUM_CALCULATION", cls.checksums).lower(),
            "addressing": environment.get("TEXTSCANNER_S3_ADDRESSING", cls.addressing),
            "anonymous": environment.get("TEXTSCANNER_S3_ANONYMOUS", "") in ("1", "true", "yes"),
        }
        for name in ("connect_timeout_s", "request_timeout_s", "deadline_s"):
            text = environment.get(f"TEXTSCANNER_S3_{name.upper()}")
            if text is not None:
                values[name] = _seconds(f"TEXTSCANNER_S3_{name.upper()}", text)
        return cls(**values)


def _seconds(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{name} is {text!r}: must be a number of seconds") from None


def passed_on() -> dict[str, str]:
    """The variables of `PASSED_ON` that are set in this process, with their values but without passwords in URLs: Ray
    shows the runtime environment on its dashboard."""
    return {name: without_password(os.environ[name]) for name in PASSED_ON if name in os.environ}
