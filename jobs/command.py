"""What every command shares: a failure is one sentence and an exit code, never a stack trace."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from typing import Protocol

from cluster.errors import StorageError


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that tells the defaults which tell something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class Main(Protocol):
    """A command's entry: arguments without the program's name, sys.argv's if None; returns the exit code."""

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Runs the command."""
        ...


def user_mistakes(main: Main) -> Main:
    """Turns a ValueError of `main` into its message and exit code 2, a StorageError into 1, Ctrl-C into 130."""

    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except StorageError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("stopped; the same command goes on where this one ended", file=sys.stderr)
            return 130

    return wrapped
