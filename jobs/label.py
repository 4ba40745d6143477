"""`python -m jobs.label`: character quads for words that have none, from a trained network."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jobs.command import Help, cli_errors


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.label",
        description="Reads a word-only data set with a trained network and writes it anew, with character quads where "
        "the reading equals the label.",
        formatter_class=Help,
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a checkpoint, a run, or weights of the package: small"
    )
    parser.add_argument("dataset", metavar="DATASET", help="a prepared data set")
    parser.add_argument("--out", required=True, metavar="URI", help="folder or s3:// prefix of the new data set")
    parser.add_argument(
        "--min-confidence", type=float, default=0.5, metavar="P", help="leave words read with less without quads; 0..1"
    )
    parser.add_argument("--only-labelled", action="store_true", help="leave words without quads out")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set that is there")
    return parser


@cli_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Labels; returns the exit code."""
    args = _parser().parse_args(argv)
    from cluster.data.dataset_writer import SAMPLES_NAME
    from cluster.data.label_dataset import label_dataset

    done = label_dataset(
        args.checkpoint, args.dataset, args.out, args.min_confidence, args.only_labelled, args.overwrite
    )
    left = "left out" if args.only_labelled else "kept without"
    print(
        f"{done.labelled:,} words given quads, {done.had_quads:,} had them, {done.not_labelled:,} {left}: {args.out}\n"
        f"look at them: {args.out}/{SAMPLES_NAME}\n"
        f"next: python -m jobs.train small --train {args.out} --val URI --storage runs --name NAME"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
