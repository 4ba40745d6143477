"""`python -m jobs.render`: draws words into a data set that can be trained on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jobs.command import Help, cli_errors


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.render",
        description="Draws words with the exact quad of every character and writes them as a data set.",
        formatter_class=Help,
    )
    parser.add_argument("--out", required=True, metavar="URI", help="folder or s3:// prefix of the new data set")
    parser.add_argument("--num-words", type=int, required=True, metavar="N", help="how many words")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="same seed and fonts, same bytes")
    parser.add_argument("--height-px", type=int, default=64, metavar="H", help="height of the images")
    parser.add_argument("--difficulty", choices=("easy", "real"), default="real", help="clean print, or the street")
    parser.add_argument("--split", choices=("train", "heldout", "all"), default="train", help="of words and of fonts")
    parser.add_argument("--fonts", nargs="*", default=[], metavar="DIR", help="further folders with .ttf or .otf files")
    parser.add_argument("--words", metavar="FILE", help="a text file with a word a line, instead of the dictionary")
    parser.add_argument(
        "--backgrounds", nargs="*", default=[], metavar="DIR", help="folders with photographs to draw on"
    )
    parser.add_argument(
        "--disable",
        nargs="*",
        default=[],
        metavar="EFFECT",
        help="effects of `real` to leave out: texture, perspective, crop, neighbours, depth, contrast, camera",
    )
    parser.add_argument("--num-cpus", type=int, metavar="K", help="processes; all cores if not given")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set that is there")
    return parser


@cli_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Renders; returns the exit code."""
    args = _parser().parse_args(argv)
    from cluster.data.render_dataset import render_dataset
    from textscanner.render.draw import RenderSettings
    from textscanner.render.fonts import find_fonts, select
    from textscanner.render.photographs import find_photographs

    fonts = select(find_fonts(args.fonts), args.split)
    settings = RenderSettings(
        seed=args.seed,
        fonts=fonts,
        height_px=args.height_px,
        difficulty=args.difficulty,
        split=args.split,
        words=args.words,
        backgrounds=find_photographs(args.backgrounds),
        disable=tuple(args.disable),
    )
    manifest = render_dataset(settings, args.out, args.num_words, args.num_cpus, args.overwrite)
    megabytes = sum(shard.num_bytes for shard in manifest.shards) / 1e6
    print(
        f"{manifest.num_rows:,} words in {len(settings.families)} font families, {megabytes:.0f} MB: {args.out}\n"
        f"next: python -m jobs.train small --train {args.out} --val URI --storage runs --name NAME"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
