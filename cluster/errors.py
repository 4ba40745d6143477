"""Failures that the user sees as a one-line message. Imports nothing heavy, because every command catches these."""

from __future__ import annotations


class StorageError(OSError):
    """Storage refused a request or did not answer. The message gives the URI, the reason and the remedy."""


class NotFoundError(StorageError, FileNotFoundError):
    """Storage answered that the file does not exist."""


class RunError(RuntimeError):
    """A run ended before its last step. The message gives the reason."""
