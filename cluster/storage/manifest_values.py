"""Checks of values in manifests, which are not trusted: whoever can write to a bucket writes its manifests."""

from __future__ import annotations

import re

_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_sha256(value: object) -> bool:
    """Whether a value is a SHA-256 in lower-case hexadecimal: it then also is a safe file name."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def is_count(value: object, maximum: int | None = None) -> bool:
    """Whether a value is a whole number from 0 to `maximum`, where None is no limit; JSON's `true` is none."""
    return type(value) is int and value >= 0 and (maximum is None or value <= maximum)
