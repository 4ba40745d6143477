"""`textscanner pull`: downloads a run's checkpoint from storage; needs no cluster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs.cli import HelpFormatter, cli_errors, local_folder, program
from textscanner.config import BEST_METRIC, WORD_ACCURACY
from textscanner.errors import UserError

if TYPE_CHECKING:
    from cluster.storage.checkpoint_manifest import StoredCheckpoint


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("pull"),
        description="Downloads a run's best checkpoint and verifies every file's hash. Re-run the same command to "
        "resume an interrupted download.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("run", metavar="RUN_URI", help="folder of the run: s3://bucket/runs/NAME or a path")
    parser.add_argument("--to", metavar="DIR", help="local folder for the checkpoint")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--step", type=int, metavar="N", help="download the checkpoint of this step")
    which.add_argument("--last", action="store_true", help="download the newest checkpoint")
    parser.add_argument("--metric", default=BEST_METRIC, metavar="NAME", help="metric that defines the best checkpoint")
    parser.add_argument("--mode", choices=("max", "min"), default="max", help="maximize or minimize the metric")
    parser.add_argument(
        "--list", action="store_true", help="list the checkpoints with their metrics, without downloading"
    )
    return parser


@cli_errors(_parser)
def main(argv: Sequence[str] | None = None) -> int:
    """Lists or downloads checkpoints; returns the exit code."""
    args = _parser().parse_args(argv)
    from cluster.storage.checkpoints import list_checkpoints, pull, select_checkpoint

    checkpoints = list_checkpoints(args.run)
    if args.list:
        _print_table(checkpoints)
        return 0
    if not args.to:
        raise UserError("--to is missing: name the folder for the checkpoint, or --list to show the checkpoints")
    checkpoint = select_checkpoint(checkpoints, metric=args.metric, mode=args.mode, step=args.step, last=args.last)
    folder = pull(checkpoint, local_folder("--to", args.to))
    value = checkpoint.metrics.get(args.metric)
    score = "" if value is None else f", {args.metric} {value:.4f}"
    print(f"step {checkpoint.step}{score}: {folder}\nnext: {program('read')} YOUR_WORD_IMAGE --checkpoint {args.to}")
    return 0


def _print_table(checkpoints: Sequence[StoredCheckpoint]) -> None:
    from rich.console import Console
    from rich.table import Table

    names = sorted({name for c in checkpoints for name in c.metrics if name.endswith(WORD_ACCURACY)})
    table = Table("step", "MB", *names)
    for c in checkpoints:
        values = (f"{c.metrics[name]:.1%}" if name in c.metrics else "" for name in names)
        table.add_row(str(c.step), f"{c.num_bytes / 1e6:.0f}", *values)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
