"""Failures that the user sees as a one-line message. Imports nothing heavy, because every command catches these."""

from __future__ import annotations

import re

# User name and password in a URL; the password may contain "@".
_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s'\"]*@")


class StorageError(OSError):
    """Storage refused a request or did not answer. The message gives the URI, the reason and the remedy."""


class NotFoundError(StorageError, FileNotFoundError):
    """Storage answered that the file does not exist."""


class FileSizeError(StorageError):
    """Storage answered, and the file is shorter than the requested range or larger than its reader accepts."""


class RunError(RuntimeError):
    """A run ended before its last step. The message gives the reason."""


def redact(text: str) -> str:
    """The text with `***` for user names and passwords in its URLs, for messages and logs."""
    return _CREDENTIALS.sub("***@", text)


def without_password(url: str) -> str:
    """The URL without user name and password."""
    return _CREDENTIALS.sub("", url)
