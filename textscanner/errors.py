"""The exception for mistakes that a user can correct."""

from __future__ import annotations


class UserError(ValueError):
    """Wrong input: a config value, a file, an argument. The message gives name, value, rule and remedy.

    Commands print the message and exit with code 2. Any other exception is a bug and keeps its traceback.
    """


def install_command(extra: str) -> str:
    """How to install an extra of this package, which is on no package index."""
    return f"pip install '.[{extra}]' in the project's folder (from a wheel: 'textscanner-....whl[{extra}]')"
