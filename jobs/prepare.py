"""`python -m jobs.prepare`: turns labelled images into a data set that can be trained on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cluster.data.importers.registry import FORMAT_NAMES, FORMATS_WITH_SPLITS
from jobs.command import Help, cli_errors


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.prepare",
        description="Turns labelled images into shards and a manifest. Rows that cannot be used are counted by reason "
        "and listed in rejects.jsonl; samples.png shows what was understood. Killed, the same command goes on.",
        epilog="docs/data.md shows every format with its command.",
        formatter_class=Help,
    )
    parser.add_argument("source", metavar="SOURCE", help="folder, file, zip or s3:// prefix")
    parser.add_argument("--out", required=True, metavar="URI", help="folder or s3:// prefix of the new data set")
    parser.add_argument("--format", default="auto", metavar="NAME", help=f"one of {', '.join(FORMAT_NAMES)}")
    parser.add_argument("--labels", metavar="NAME", help="the label file inside SOURCE, if it has an unusual name")
    parser.add_argument("--split", metavar="NAME", help=f"only rows of this split ({', '.join(FORMATS_WITH_SPLITS)})")
    parser.add_argument("--charset-file", metavar="FILE", help="characters to read; by default 0-9a-z, any case")
    parser.add_argument("--max-label-length", type=int, default=30, metavar="N", help="longer labels are set aside")
    parser.add_argument(
        "--unknown",
        choices=("keep", "reject"),
        default="keep",
        help="labels with characters outside the charset: keep them (trained as 'unknown', not scored) or reject",
    )
    parser.add_argument("--max-reject-share", type=float, default=0.5, metavar="X", help="more rejects end the job")
    parser.add_argument("--shard-mib", type=int, default=128, metavar="N", help="images per shard, at most")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set that is there")
    return parser


@cli_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Prepares; returns the exit code."""
    args = _parser().parse_args(argv)
    from cluster.data.dataset_writer import REJECTS_NAME, SAMPLES_NAME
    from cluster.data.import_dataset import PrepareSettings, prepare_dataset
    from textscanner.charset import ALPHANUMERIC, load_charset

    charset = load_charset(args.charset_file) if args.charset_file else ALPHANUMERIC
    settings = PrepareSettings(
        charset,
        args.format,
        args.split,
        args.labels,
        args.max_label_length,
        args.unknown,
        args.max_reject_share,
        args.shard_mib,
    )
    manifest = prepare_dataset(args.source, args.out, settings, args.overwrite)
    with_quads = sum(shard.num_with_quads for shard in manifest.shards)
    print(
        f"{manifest.num_rows:,} words ({with_quads:,} with character quads): {args.out}; look at {SAMPLES_NAME} there"
    )
    if manifest.reject_counts:
        told = ", ".join(f"{reason} {count}" for reason, count in manifest.reject_counts.items())
        print(f"{sum(manifest.reject_counts.values()):,} rows set aside: {told}; listed in {args.out}/{REJECTS_NAME}")
    print(f"next: python -m jobs.train small --train {args.out} --val URI --storage runs --name NAME")
    return 0


if __name__ == "__main__":
    sys.exit(main())
