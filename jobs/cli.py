"""Shared by all commands: exit codes and error messages, and the arguments of runs and readings."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import json
import os
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from cluster.errors import StorageError
from textscanner.checkpoint_files import DEFAULT_VOCABULARY, NO_VOCABULARY, shipped_weights
from textscanner.errors import UserError, install_command

if TYPE_CHECKING:
    from cluster.config import RunSpec

NO_INIT = "none"  # --init none: random weights

# Config fields and arguments of the inner rings whose flag has another name. Any other argument is its own flag:
# `min_confidence` is --min-confidence.
FLAGS = (
    ("data.train", "--train"),
    ("data.val", "--val"),
    ("train.init", "--init"),
    ("train.workers", "--workers"),
    ("train.workers", "--workers-per-trial"),  # of sweeps, which have no --workers
    ("train.gpus_per_worker", "--gpus-per-worker"),
    ("train.cpus_per_worker", "--cpus-per-worker"),
    ("storage_uri", "--storage"),
    ("num_trials", "--trials"),
    ("budget_s", "--budget-minutes"),
    ("stall_s", "--stall-minutes"),
    ("calibration", "--calibrate"),
    ("out", "--out"),
)
# The field at the start of a message, or of a further message after "; ".
FIELD = re.compile(r"(?:^|(?<=; ))[a-z][a-z0-9_.]*(?=:| (?:is|names|needs|cannot)\b)")

# Packages outside the base install, by the extra that provides them.
EXTRAS = {
    "train": (
        *("boto3", "botocore", "filelock", "fsspec", "ijson", "keras", "lmdb", "onnx", "optuna", "plotly", "psutil"),
        *("pyarrow", "ray", "rich", "safetensors", "scipy", "tenacity", "tensorflow", "tf2onnx", "tqdm", "yaml"),
    ),
    "render": ("PIL", "matplotlib"),
}
RENDER_FONTS = "deckr_fonts"  # a font package that only `render` brings


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults of options, except those that stand for "not set"."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        is_unset = action.default is None or action.default is False or action.default in ("", [])
        return action.help if is_unset else super()._get_help_string(action)


class Main(Protocol):
    """Entry point of a command: arguments without the program's name (None for sys.argv) to an exit code."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


def program(verb: str) -> str:
    """How the user starts a command: `textscanner VERB` if this process was started so, else `python -m jobs.VERB`."""
    if pathlib.Path(sys.argv[0]).stem == "textscanner":
        return f"textscanner {verb}"
    return f"python -m jobs.{verb.replace('-', '_')}"


def cli_errors(parser: Callable[[], argparse.ArgumentParser]) -> Callable[[Main], Main]:
    """Decorates a command's `main`: errors that the user can act on become a message and an exit code.

    UserError and a package that is not installed exit with 2, StorageError with 1, Ctrl-C with 130, a closed output
    pipe (`| head`) with 141. Any other exception is a bug and passes through: Python shows its traceback and exits
    with 1.

    Args:
      parser: builds the command's parser; its flags replace field names in messages.
    """

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def wrapped(argv: Sequence[str] | None = None) -> int:
            try:
                return main(argv)
            except UserError as error:
                return _fail(name_flags(str(error), parser()), 2)
            except StorageError as error:
                return _fail(str(error), 1)
            except ModuleNotFoundError as error:
                extra = missing_extra(error)
                if extra is None:
                    raise
                return _fail(f"{error.name} is not installed; this command needs: {install_command(extra)}", 2)
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again when it exits
                return 141
            except KeyboardInterrupt:
                print("interrupted; re-run the same command to resume", file=sys.stderr)
                return 130

        return wrapped

    return decorate


def _fail(message: str, exit_code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return exit_code


def name_flags(message: str, parser: argparse.ArgumentParser) -> str:
    """The message with flags of this parser instead of the fields they set.

    Where the names differ the field follows in parentheses, as its unit may differ too (`--stall-minutes (stall_s)`).
    """
    flags = {flag for action in parser._actions for flag in action.option_strings}
    flag_of = {field: flag for field, flag in FLAGS if flag in flags}

    def replace(match: re.Match[str]) -> str:
        field = match[0]
        own_flag = f"--{field.replace('_', '-')}"
        if own_flag in flags:
            return own_flag
        return f"{flag_of[field]} ({field})" if field in flag_of else field

    return FIELD.sub(replace, message)


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """The extra that provides the missing package; None if no extra does, which is a bug."""
    package = (error.name or "").partition(".")[0]
    return next((extra for extra, packages in EXTRAS.items() if package in packages), None)


def check_render_extra() -> None:
    """Checks that the fonts of the `render` extra are installed. Its other packages come with `train` too.

    Raises:
      UserError: they are not.
    """
    if importlib.util.find_spec(RENDER_FONTS) is None:
        raise UserError(f"the fonts to render with are not installed: {install_command('train,render')}")


def local_folder(flag: str, path: str) -> pathlib.Path:
    """The folder that a flag names.

    Raises:
      UserError: it is a URI, which would become a folder of that name in the working directory.
    """
    if "://" in path:
        raise UserError(f"{flag} is {path!r}: must be a folder on this machine; copy it to storage afterwards")
    return pathlib.Path(path)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that define a run, of `train` and `tune`."""
    parser.add_argument("preset", metavar="PRESET", help="paper, small or tiny (textscanner/presets.py)")
    parser.add_argument("--train", nargs="+", required=True, metavar="URI", help="prepared data sets to train on")
    parser.add_argument("--val", nargs="+", default=[], metavar="URI", help="prepared data sets to validate on")
    parser.add_argument("--storage", required=True, metavar="URI", help="folder or s3:// prefix for runs")
    parser.add_argument("--name", required=True, metavar="NAME", help="the run's folder in --storage")
    parser.add_argument(
        "--init",
        metavar="URI",
        help="initial weights: a checkpoint to fine-tune, the name of bundled weights, or none for random weights "
        "(default: the bundled weights with the preset's name, if there are any: small)",
    )
    add_config_arguments(parser)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that change a preset's config."""
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="config values: section.key=value"
    )
    parser.add_argument(
        "--charset-file", metavar="FILE", help="characters to read, case-sensitive (default: 0-9a-z, case-insensitive)"
    )


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that constrain readings to known words."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--vocabulary",
        default=DEFAULT_VOCABULARY,
        metavar="WORDS",
        help="word prior that corrects ambiguous characters: languages (en, de, en+de, ...), a file with one word per "
        "line, or none to use the network's output unchanged",
    )
    group.add_argument(
        "--lexicon", metavar="FILE", help="file with one word per line; each reading becomes the closest of these words"
    )


def vocabulary_of(args: argparse.Namespace) -> str:
    """The vocabulary to read with; none if a lexicon decides."""
    return NO_VOCABULARY if args.lexicon else str(args.vocabulary)


def run_spec(args: argparse.Namespace, workers: int | None) -> RunSpec:
    """The run that the arguments of `add_run_arguments` define.

    Raises:
      UserError: a value breaks a rule of the config.
    """
    init = args.init or (args.preset if args.preset in shipped_weights() else NO_INIT)
    assignments = [f"train.init={'' if init == NO_INIT else init}"]
    if workers is not None:
        assignments.append(f"train.workers={workers}")
    return spec_of_preset(args.preset, args, assignments)


def spec_of_preset(preset_name: str, args: argparse.Namespace, assignments: Sequence[str]) -> RunSpec:
    """The preset with its data sets and charset, then `assignments`, then `--set` applied.

    Raises:
      UserError: a value breaks a rule of the config.
    """
    from cluster.config import RunSpec, override
    from textscanner.charset import load_charset
    from textscanner.presets import preset

    config = preset(preset_name)
    if args.charset_file:
        config = dataclasses.replace(config, charset=load_charset(args.charset_file))
    data = [f"data.train={json.dumps(args.train)}", f"data.val={json.dumps(args.val)}"]
    return override(RunSpec(config), [*data, *assignments, *args.set])
