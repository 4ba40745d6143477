"""`python -m jobs.pull`: a run's checkpoint out of storage, without a cluster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jobs.command import Help, cli_errors, local_folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.pull",
        description="Downloads a run's best checkpoint, checks every hash, and goes on where a download broke off.",
        formatter_class=Help,
    )
    parser.add_argument("run", metavar="RUN_URI", help="the run's folder: s3://bucket/runs/NAME, or a path")
    parser.add_argument("--to", metavar="DIR", help="where the checkpoint goes")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--step", type=int, metavar="N", help="the checkpoint of this step")
    which.add_argument("--last", action="store_true", help="the newest checkpoint")
    parser.add_argument("--metric", default="val/word_accuracy", metavar="NAME", help="what best means")
    parser.add_argument("--mode", choices=("max", "min"), default="max", help="of the metric")
    parser.add_argument("--list", action="store_true", help="print the checkpoints with their metrics, download none")
    return parser


@cli_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Lists or downloads; returns the exit code."""
    args = _parser().parse_args(argv)
    from cluster.storage.checkpoints import list_checkpoints, pull, select_checkpoint

    found = list_checkpoints(args.run)
    if args.list:
        _print_table(found)
        return 0
    if not args.to:
        raise ValueError("--to is missing: name the folder that the checkpoint goes to, or --list to look")
    chosen = select_checkpoint(found, args.metric, args.mode, args.step, args.last)
    folder = pull(chosen, local_folder("--to", args.to))
    told = f", {args.metric} {chosen.metrics[args.metric]:.4f}" if args.metric in chosen.metrics else ""
    print(f"step {chosen.step}{told}: {folder}\nnext: python -m jobs.read YOUR_WORD_IMAGE --checkpoint {args.to}")
    return 0


def _print_table(found: list) -> None:
    from rich.console import Console
    from rich.table import Table

    names = sorted({name for c in found for name in c.metrics if name.endswith("word_accuracy")})
    table = Table("step", "MB", *names)
    for c in found:
        shown = (f"{c.metrics[name]:.1%}" if name in c.metrics else "" for name in names)
        table.add_row(str(c.step), f"{c.num_bytes / 1e6:.0f}", *shown)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
