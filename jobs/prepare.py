"""`textscanner prepare`: converts labelled images to a data set for training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

from cluster.data.importers.registry import FORMAT_NAMES, FORMATS_WITH_SPLITS
from cluster.data.prepare_settings import LabelCase, PrepareSettings, UnknownCharacters
from jobs.cli import HelpFormatter, cli_errors, program


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("prepare"),
        description="Converts labelled images to Parquet shards with a manifest. Unusable rows are counted by reason "
        "and listed in rejects.jsonl; samples.png shows words with their labels and boxes. Re-run the same command to "
        "resume.",
        epilog="The documentation page Data shows every format with its command.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("source", metavar="SOURCE", help="folder, file, zip or s3:// prefix")
    parser.add_argument("--out", required=True, metavar="URI", help="folder or s3:// prefix of the new data set")
    parser.add_argument(
        "--format", default=PrepareSettings.format, metavar="NAME", help=f"one of {', '.join(FORMAT_NAMES)}"
    )
    parser.add_argument("--labels", metavar="NAME", help="label file inside SOURCE (default: the format's usual name)")
    parser.add_argument("--split", metavar="NAME", help=f"only rows of this split ({', '.join(FORMATS_WITH_SPLITS)})")
    parser.add_argument(
        "--charset-file",
        metavar="FILE",
        help="characters to read, case-sensitive (default: the 94 printable ASCII characters)",
    )
    parser.add_argument(
        "--max-label-length",
        type=int,
        default=PrepareSettings.max_label_length,
        metavar="N",
        help="reject longer labels",
    )
    parser.add_argument(
        "--unknown",
        choices=get_args(UnknownCharacters),
        default=PrepareSettings.unknown,
        help="labels with characters outside the charset: keep (trained as 'unknown', not scored) or reject",
    )
    parser.add_argument(
        "--case",
        choices=get_args(LabelCase),
        default=PrepareSettings.case,
        help="unknown: labels are written in one case, whatever the images show; training then accepts either case",
    )
    parser.add_argument(
        "--max-reject-share",
        type=float,
        default=PrepareSettings.max_reject_share,
        metavar="X",
        help="fail if more than this share of the rows is rejected; 0..1",
    )
    parser.add_argument(
        "--shard-mib", type=int, default=PrepareSettings.shard_mib, metavar="N", help="maximum size of a shard in MiB"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing data set")
    return parser


@cli_errors(_parser)
def main(argv: Sequence[str] | None = None) -> int:
    """Prepares; returns the exit code."""
    args = _parser().parse_args(argv)
    from cluster.data.dataset_writer import REJECTS_NAME, SAMPLES_NAME
    from cluster.data.import_dataset import prepare_dataset
    from textscanner.charset import PRINTABLE_ASCII, load_charset

    settings = PrepareSettings(
        charset=load_charset(args.charset_file) if args.charset_file else PRINTABLE_ASCII,
        format=args.format,
        split=args.split,
        labels=args.labels,
        max_label_length=args.max_label_length,
        unknown=args.unknown,
        case=args.case,
        max_reject_share=args.max_reject_share,
        shard_mib=args.shard_mib,
    )
    manifest = prepare_dataset(args.source, args.out, settings, overwrite=args.overwrite)
    num_with_quads = sum(shard.num_with_quads for shard in manifest.shards)
    print(f"{manifest.num_rows:,} words ({num_with_quads:,} with character quads): {args.out}")
    print(f"check the labels: {args.out}/{SAMPLES_NAME}")
    if manifest.reject_counts:
        reasons = ", ".join(f"{reason} {count}" for reason, count in manifest.reject_counts.items())
        print(f"{sum(manifest.reject_counts.values()):,} rows rejected: {reasons}; listed in {args.out}/{REJECTS_NAME}")
    print(f"next: {program('train')} small --train {args.out} --val URI --storage runs --name NAME")
    return 0


if __name__ == "__main__":
    sys.exit(main())
