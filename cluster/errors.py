"""Failures that reach a person as one sentence. Import-light: every command catches them."""

from __future__ import annotations


class StorageError(OSError):
    """Storage refused or did not answer; the message names the place, the reason and the remedy."""


class RunError(RuntimeError):
    """A run that ended without reaching its last step; the message says why."""


class NotFoundError(StorageError, FileNotFoundError):
    """Storage answers, and there is no such file."""
