"""What every command shares: a user's mistake is one sentence and exit code 2, never a stack trace."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Protocol


class Main(Protocol):
    """A command's entry: arguments without the program's name, sys.argv's if None; returns the exit code."""

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Runs the command."""
        ...


def user_mistakes(main: Main) -> Main:
    """Turns a ValueError of `main` into its message on stderr and exit code 2, and Ctrl-C into 130."""

    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("stopped; the same command goes on where this one ended", file=sys.stderr)
            return 130

    return wrapped
