"""`textscanner label`: adds character quads (pseudo-labels) to words that have none, with a trained model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jobs.cli import HelpFormatter, cli_errors, program


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("label"),
        description="Reads a data set without character quads and writes a copy of it. Words that the model reads as "
        "labelled get the quads that the model predicts.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint, a run, or bundled weights: small")
    parser.add_argument("dataset", metavar="DATASET", help="a prepared data set")
    parser.add_argument("--out", required=True, metavar="URI", help="folder or s3:// prefix of the new data set")
    parser.add_argument(
        "--min-confidence", type=float, default=0.5, metavar="P", help="lowest word confidence that gets quads; 0..1"
    )
    parser.add_argument(
        "--only-labelled", action="store_true", help="leave words without quads out of the new data set"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing data set")
    return parser


@cli_errors(_parser)
def main(argv: Sequence[str] | None = None) -> int:
    """Labels; returns the exit code."""
    args = _parser().parse_args(argv)
    from cluster.data.dataset_writer import SAMPLES_NAME
    from cluster.data.label_dataset import label_dataset

    result = label_dataset(
        checkpoint=args.checkpoint,
        source_uri=args.dataset,
        out_uri=args.out,
        min_confidence=args.min_confidence,
        only_labelled=args.only_labelled,
        overwrite=args.overwrite,
    )
    remaining = "left out" if args.only_labelled else "kept without quads"
    print(
        f"{result.labelled:,} words labelled, {result.had_quads:,} had quads, {result.not_labelled:,} {remaining}: "
        f"{args.out}\n"
        f"check the quads: {args.out}/{SAMPLES_NAME}\n"
        f"next: {program('train')} small --train {args.out} --val URI --storage runs --name NAME"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
