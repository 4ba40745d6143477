"""`python -m jobs.preflight`: is the cluster fit for a long job? A table of what was found and what to do."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cluster.preflight.timeouts import DEFAULT_TIMEOUTS, Timeouts
from jobs.command import Help, cli_errors

if TYPE_CHECKING:
    from cluster.config import RunSpec
    from cluster.preflight.check import CheckResult

WORDS = {True: "ok", False: "red", None: "-"}
MARKS = {True: "[green]ok[/]", False: "[bold red]RED[/]", None: "[dim]-[/]"}
SMOKE_IMAGES_PER_REPLICA = 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.preflight",
        description="Checks nodes, storage, data and network before a long training: give it what jobs.train is given.",
        epilog="Exit code: 0 all green, 1 something is red, 2 a mistake in the command.",
        formatter_class=Help,
    )
    parser.add_argument("preset", nargs="?", metavar="PRESET", help="paper, small or tiny; tiny if not given")
    parser.add_argument("--storage", required=True, metavar="URI", help="where runs are kept; it is written to")
    parser.add_argument(
        "--train", nargs="+", default=[], metavar="URI", help="prepared data sets; else words are drawn"
    )
    parser.add_argument("--val", nargs="+", default=[], metavar="URI", help="further prepared data sets")
    parser.add_argument("--workers", type=int, metavar="N", help="training workers; train.workers")
    parser.add_argument("--gpus-per-worker", type=int, metavar="G", help="train.gpus_per_worker")
    parser.add_argument("--cpus-per-worker", type=float, metavar="C", help="train.cpus_per_worker")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="section.key=value")
    parser.add_argument("--charset-file", metavar="FILE", help="characters to read, as for jobs.train")
    for name, seconds, told in (
        ("--wait-s", DEFAULT_TIMEOUTS.nodes_s, "for the workers' nodes to come up"),
        ("--deadline-s", DEFAULT_TIMEOUTS.answer_s, "for each answer of the nodes"),
        ("--step-s", DEFAULT_TIMEOUTS.step_s, "for each step of the training"),
    ):
        parser.add_argument(name, type=float, default=seconds, metavar="S", help=told)
    parser.add_argument("--json", action="store_true", help="print the findings as a JSON list")
    return parser


@cli_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Checks; returns the exit code."""
    args = _parser().parse_args(argv)
    spec = _spec(args)
    from cluster.preflight.run import preflight

    checks = []
    for check in preflight(spec, args.storage, Timeouts(args.wait_s, args.deadline_s, args.step_s)):
        checks.append(check)
        print(f"{check.name}: {WORDS[check.ok]}", file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps([dataclasses.asdict(check) for check in checks], indent=2, ensure_ascii=False))
    else:
        _print_table(checks)
    return int(any(check.ok is False for check in checks))


def _spec(args: argparse.Namespace) -> RunSpec:
    from cluster.config import RunSpec, override
    from textscanner.charset import load_charset
    from textscanner.presets import preset

    config = preset(args.preset or "tiny")
    if args.charset_file:
        config = dataclasses.replace(config, charset=load_charset(args.charset_file))
    told = [f"data.train={json.dumps(args.train)}", f"data.val={json.dumps(args.val)}"]
    for name in ("workers", "gpus_per_worker", "cpus_per_worker"):
        if getattr(args, name) is not None:
            told.append(f"train.{name}={getattr(args, name)}")
    if args.preset is None and args.workers:  # nobody's batch: one that fits any number of workers
        batch = args.workers * max(1, args.gpus_per_worker or 0) * SMOKE_IMAGES_PER_REPLICA
        told += [f"data.num_streams={args.workers}", f"train.global_batch_size={batch}"]
    return override(RunSpec(config), told + args.set)


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
