"""How a bucket is reached: settings from the environment, none of them a secret."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any, Literal

# Settings that are no secrets, handed to the workers of a cluster that was started elsewhere.
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


@dataclasses.dataclass(frozen=True)
class StorageSettings:
    """How a bucket is reached.

    Attributes:
      endpoint: URL of a server that speaks S3; None for AWS.
      region: None for the chain's own.
      addressing: `path` puts the bucket into the path, `virtual` into the host name; `auto` is path with an endpoint.
      checksums: `when_required` for servers that refuse checksum trailers.
      connect_timeout_s, request_timeout_s: of one attempt.
      deadline_s: over all attempts of one operation.
      anonymous: no credentials: public buckets.
    """

    endpoint: str | None = None
    region: str | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    checksums: Literal["when_supported", "when_required"] = "when_supported"
    connect_timeout_s: float = 5.0
    request_timeout_s: float = 30.0
    deadline_s: float = 120.0
    anonymous: bool = False

    def __post_init__(self) -> None:
        if self.endpoint and not re.match(r"https?://", self.endpoint):
            raise ValueError(f"AWS_ENDPOINT_URL_S3 is {self.endpoint!r}: must start with http:// or https://")
        if self.addressing not in ("auto", "path", "virtual"):
            raise ValueError(f"TEXTSCANNER_S3_ADDRESSING is {self.addressing!r}: must be auto, path or virtual")
        if self.checksums not in ("when_supported", "when_required"):
            raise ValueError(
                f"AWS_REQUEST_CHECKSUM_CALCULATION is {self.checksums!r}: must be when_supported or when_required"
            )
        for name in ("connect_timeout_s", "request_timeout_s", "deadline_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"TEXTSCANNER_S3_{name.upper()} is {getattr(self, name)}: must be positive")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> StorageSettings:
        """The settings of AWS' own variables, and of TEXTSCANNER_S3_* for what AWS has no variable for.

        Raises:
          ValueError: a variable's value breaks a rule.
        """
        found: dict[str, Any] = {
            "endpoint": environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL"),
            "region": environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION"),
            "checksums": environment.get("AWS_REQUEST_CHECKSUM_CALCULATION", cls.checksums).lower(),
            "addressing": environment.get("TEXTSCANNER_S3_ADDRESSING", cls.addressing),
            "anonymous": environment.get("TEXTSCANNER_S3_ANONYMOUS", "") in ("1", "true", "yes"),
        }
        for name in ("connect_timeout_s", "request_timeout_s", "deadline_s"):
            text = environment.get(f"TEXTSCANNER_S3_{name.upper()}")
            if text is not None:
                found[name] = _seconds(f"TEXTSCANNER_S3_{name.upper()}", text)
        return cls(**found)


def _seconds(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}: must be a number of seconds") from None


def passed_on() -> dict[str, str]:
    """The environment variables that workers of a remote cluster need; none is a secret."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}
