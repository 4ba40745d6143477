"""The exception for mistakes that a user can correct."""

from __future__ import annotations


class UserError(ValueError):
    """Wrong input: a config value, a file, an argument. The message gives name, value, rule and remedy.

    Commands print the message and exit with code 2. Any other exception is a bug and keeps its traceback.
    """
