"""What every command shares: a failure is one sentence and an exit code, never a stack trace."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from cluster.errors import StorageError
from textscanner.inference.vocabulary import DEFAULT_VOCABULARY, NO_VOCABULARY

if TYPE_CHECKING:
    from cluster.config import RunSpec

NO_INIT = "none"  # --init none: random weights


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that tells the defaults which tell something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class Main(Protocol):
    """A command's entry: arguments without the program's name, sys.argv's if None; returns the exit code."""

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Runs the command."""
        ...


def cli_errors(main: Main) -> Main:
    """Turns a ValueError of `main` into its message and exit code 2, a StorageError into 1, Ctrl-C into 130, and the
    end of a reader of its output (`| head`) into 141."""

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
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more as it ends
            return 141
        except KeyboardInterrupt:
            print("stopped; the same command goes on where this one ended", file=sys.stderr)
            return 130

    return wrapped


def local_folder(option: str, given: str) -> pathlib.Path:
    """The folder that an option names.

    Raises:
      ValueError: it is a URI; files of that name would land in the working directory.
    """
    if "://" in given:
        raise ValueError(f"{option} is {given!r}: it must be a folder on this machine; copy it to storage afterwards")
    return pathlib.Path(given)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """What defines a run and a trial alike."""
    parser.add_argument("preset", metavar="PRESET", help="paper, small or tiny (textscanner/presets.py)")
    parser.add_argument("--train", nargs="+", required=True, metavar="URI", help="prepared data sets to train on")
    parser.add_argument("--val", nargs="+", default=[], metavar="URI", help="prepared data sets to validate on")
    parser.add_argument("--storage", required=True, metavar="URI", help="where runs are kept")
    parser.add_argument("--name", required=True, metavar="NAME", help="the run's folder in --storage")
    parser.add_argument(
        "--init",
        metavar="URI",
        help="start with the weights of this checkpoint, or of a name that the package brings, or none for random "
        "ones; if not given, the package's weights of the preset's name if there are any: small",
    )
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="section.key=value")
    parser.add_argument(
        "--charset-file", metavar="FILE", help="characters to read; 0-9a-z, case-insensitive, if not given"
    )


def add_word_arguments(parser: argparse.ArgumentParser) -> None:
    """What is known of the words to be read."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--vocabulary",
        default=DEFAULT_VOCABULARY,
        metavar="WORDS",
        help="which words are likely, where the image leaves a doubt: languages (en, de, en+de, ...), a file with a "
        "word a line, or none for what the network sees",
    )
    group.add_argument("--lexicon", metavar="FILE", help="the only words there are, one a line: the closest is read")


def vocabulary_of(args: argparse.Namespace) -> str:
    """The vocabulary asked for; a lexicon needs none."""
    return NO_VOCABULARY if args.lexicon else args.vocabulary


def run_spec(args: argparse.Namespace, workers: int | None) -> RunSpec:
    """The run spec of these arguments.

    Raises:
      ValueError: a value breaks a rule.
    """
    from cluster.config import RunSpec, override
    from textscanner.charset import load_charset
    from textscanner.checkpoint_files import shipped_weights
    from textscanner.presets import preset

    config = preset(args.preset)
    if args.charset_file:
        config = dataclasses.replace(config, charset=load_charset(args.charset_file))
    told = [f"data.train={json.dumps(args.train)}", f"data.val={json.dumps(args.val)}"]
    init = args.init or (args.preset if args.preset in shipped_weights() else NO_INIT)
    told.append(f"train.init={'' if init == NO_INIT else init}")
    if workers is not None:
        told.append(f"train.workers={workers}")
    return override(RunSpec(config), told + args.set)
