"""`textscanner render`: renders synthetic words to a data set for training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

from jobs.cli import HelpFormatter, check_render_extra, cli_errors, program
from textscanner.render.options import DEFAULT_DIFFICULTY, DEFAULT_SPLIT, EFFECTS, Difficulty, Split


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("render"),
        description="Renders synthetic words with the exact quad of every character and writes them as a data set.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--out", required=True, metavar="URI", help="folder or s3:// prefix of the new data set")
    parser.add_argument("--num-words", type=int, required=True, metavar="N", help="number of words")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="random seed; the same seed and fonts give the same bytes"
    )
    parser.add_argument("--height-px", type=int, default=64, metavar="H", help="image height in pixels")
    parser.add_argument(
        "--difficulty",
        choices=get_args(Difficulty),
        default=DEFAULT_DIFFICULTY,
        help="clean print, or the effects of street photographs",
    )
    parser.add_argument(
        "--split", choices=get_args(Split), default=DEFAULT_SPLIT, help="part of the words and fonts to use"
    )
    parser.add_argument(
        "--fonts", nargs="*", default=[], metavar="DIR", help="additional folders with .ttf or .otf files"
    )
    parser.add_argument(
        "--words",
        metavar="FILE",
        help="text file with one word per line (default: frequency lists of English and four other languages)",
    )
    parser.add_argument(
        "--backgrounds", nargs="*", default=[], metavar="DIR", help="folders with photographs for backgrounds"
    )
    parser.add_argument(
        "--disable",
        nargs="*",
        default=[],
        metavar="EFFECT",
        help=f"effects of `real` to turn off: {', '.join(EFFECTS)}",
    )
    parser.add_argument("--num-cpus", type=int, metavar="K", help="number of processes (default: all cores)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing data set")
    return parser


@cli_errors(_parser)
def main(argv: Sequence[str] | None = None) -> int:
    """Renders; returns the exit code."""
    args = _parser().parse_args(argv)
    from cluster.data.render_dataset import render_dataset
    from textscanner.render.draw import RenderSettings
    from textscanner.render.fonts import find_fonts, select
    from textscanner.render.photographs import find_photographs

    if not args.fonts:
        check_render_extra()
    settings = RenderSettings(
        seed=args.seed,
        fonts=select(find_fonts(args.fonts), args.split),
        height_px=args.height_px,
        difficulty=args.difficulty,
        split=args.split,
        words=args.words,
        backgrounds=find_photographs(args.backgrounds),
        disable=tuple(args.disable),
    )
    manifest = render_dataset(
        settings, args.out, num_words=args.num_words, num_cpus=args.num_cpus, overwrite=args.overwrite
    )
    megabytes = sum(shard.num_bytes for shard in manifest.shards) / 1e6
    print(
        f"{manifest.num_rows:,} words in {len(settings.families)} font families, {megabytes:.0f} MB: {args.out}\n"
        f"next: {program('train')} small --train {args.out} --val URI --storage runs --name NAME"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
