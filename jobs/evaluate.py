"""`python -m jobs.evaluate`: scores a checkpoint on data sets."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from jobs.command import user_mistakes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.evaluate",
        description="Scores a checkpoint: case-insensitive, letters and digits only, as the field does.",
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a checkpoint, or a run for its best one; a folder or s3:// URI"
    )
    parser.add_argument(
        "datasets",
        nargs="+",
        metavar="DATASET",
        help="a prepared data set, or labelled images in a format that jobs.prepare knows; "
        "NAME=DATASET gives it a name in the table and the JSON",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--split", metavar="NAME", help="only rows of this split, of formats with splits")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="Ray actors, for large prepared sets")
    return parser


@user_mistakes
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates; returns the exit code."""
    args = _parser().parse_args(argv)
    from cluster.logs import load_tensorflow

    load_tensorflow()
    from cluster.evaluation import Score, evaluate

    scores: dict[str, Score] = {}
    for given in args.datasets:
        name, source = _named(given)
        scores[name] = evaluate(args.checkpoint, source, args.split, args.workers)
    _print_table(scores)
    if args.json:
        told = {"datasets": {name: score.as_dict() for name, score in scores.items()}}
        pathlib.Path(args.json).write_text(json.dumps(told, indent=2))
        print(f"figures: {args.json}")
    return 0


def _named(given: str) -> tuple[str, str]:
    name, equals, source = given.partition("=")
    return (name, source) if equals and "/" not in name else (given, given)


def _print_table(scores: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("data set", *("words", "word accuracy", "1 - NED", "characters", "length"), "broken images")
    for name, score in scores.items():
        counts = score.counts
        shares = (counts.word_accuracy, counts.one_minus_ned, counts.char_accuracy, counts.length_accuracy)
        table.add_row(name, f"{counts.num_words:,.0f}", *(f"{s:.1%}" for s in shares), str(score.num_broken))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
