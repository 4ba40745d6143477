"""`textscanner preflight`: checks whether the cluster is ready for a long run, and prints findings with remedies."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cluster.preflight.timeouts import DEFAULT_TIMEOUTS, Timeouts
from jobs.cli import HelpFormatter, add_config_arguments, cli_errors, program, spec_of_preset

if TYPE_CHECKING:
    from cluster.config import RunSpec
    from cluster.preflight.check import CheckResult

WORDS = {True: "ok", False: "red", None: "-"}
MARKS = {True: "[green]ok[/]", False: "[bold red]RED[/]", None: "[dim]-[/]"}
DEFAULT_PRESET = "tiny"
SMOKE_IMAGES_PER_REPLICA = 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("preflight"),
        description="Checks nodes, storage, data and network before a long run. Takes the arguments of the train "
        "command.",
        epilog="Exit code: 0 all green, 1 at least one check is red, 2 invalid arguments.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("preset", nargs="?", metavar="PRESET", help=f"paper, small or tiny (default: {DEFAULT_PRESET})")
    parser.add_argument(
        "--storage", required=True, metavar="URI", help="folder or s3:// prefix for runs; the check writes to it"
    )
    parser.add_argument(
        "--train", nargs="+", default=[], metavar="URI", help="prepared data sets to train on (default: rendered words)"
    )
    parser.add_argument("--val", nargs="+", default=[], metavar="URI", help="prepared data sets to validate on")
    parser.add_argument("--workers", type=int, metavar="N", help="training workers (train.workers)")
    parser.add_argument("--gpus-per-worker", type=int, metavar="G", help="GPUs of each worker (train.gpus_per_worker)")
    parser.add_argument(
        "--cpus-per-worker", type=float, metavar="C", help="CPUs of each worker (train.cpus_per_worker)"
    )
    add_config_arguments(parser)
    for flag, seconds, description in (
        ("--wait-s", DEFAULT_TIMEOUTS.nodes_s, "timeout for the workers' nodes to start"),
        ("--deadline-s", DEFAULT_TIMEOUTS.answer_s, "timeout for each answer of the nodes"),
        ("--step-s", DEFAULT_TIMEOUTS.step_s, "timeout for each training step, compilation included"),
    ):
        parser.add_argument(flag, type=float, default=seconds, metavar="S", help=description)
    parser.add_argument("--json", action="store_true", help="print the findings as a JSON list")
    return parser


@cli_errors(_parser)
def main(argv: Sequence[str] | None = None) -> int:
    """Checks; returns the exit code."""
    args = _parser().parse_args(argv)
    spec = _spec(args)
    from cluster.preflight.run import preflight

    timeouts = Timeouts(nodes_s=args.wait_s, answer_s=args.deadline_s, step_s=args.step_s)
    checks = []
    for check in preflight(spec, args.storage, timeouts):
        checks.append(check)
        print(f"{check.name}: {WORDS[check.ok]}", file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps([dataclasses.asdict(check) for check in checks], indent=2, ensure_ascii=False))
    else:
        _print_table(checks)
    return int(any(check.ok is False for check in checks))


def _spec(args: argparse.Namespace) -> RunSpec:
    assignments = [
        f"train.{name}={value}"
        for name in ("workers", "gpus_per_worker", "cpus_per_worker")
        if (value := getattr(args, name)) is not None
    ]
    if args.preset is None and args.workers:
        # No preset, so no batch size to respect: take one that divides among any number of workers.
        batch = args.workers * max(1, args.gpus_per_worker or 0) * SMOKE_IMAGES_PER_REPLICA
        assignments += [f"data.num_streams={args.workers}", f"train.global_batch_size={batch}"]
    return spec_of_preset(args.preset or DEFAULT_PRESET, args, assignments)


def _print_table(checks: Sequence[CheckResult]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "check", "found", "what to do", show_lines=True)
    for check in checks:
        table.add_row(MARKS[check.ok], check.name, escape(check.finding), escape(check.remedy))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
