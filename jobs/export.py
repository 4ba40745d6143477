"""`python -m jobs.export`: a checkpoint as a model that runs without this package."""

from __future__ import annotations

import argparse
import itertools
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from jobs.command import Help, user_mistakes

CHECKED_WORDS = 500
DRAWN_WORDS, DRAWN_SEED = 64, 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.export",
        description="Writes a checkpoint as a model with decoding inside (images in; class ids, confidences and "
        "positions out) and checks that it reads the same words.",
        formatter_class=Help,
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a checkpoint, a run, or weights of the package: small"
    )
    parser.add_argument("--format", required=True, choices=("saved_model", "onnx", "litert"), help="for what runs it")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the model and its metadata.json")
    parser.add_argument(
        "--check",
        metavar="DATASET",
        help=f"compare on its first {CHECKED_WORDS} words too, not only noise and drawn words",
    )
    parser.add_argument("--half", action="store_true", help="onnx: weights stored as float16, computed with as float32")
    return parser


@user_mistakes
def main(argv: Sequence[str] | None = None) -> int:
    """Exports; returns 0, or 1 if the exported model reads a word differently."""
    args = _parser().parse_args(argv)
    from cluster.logs import load_tensorflow

    load_tensorflow()
    import textscanner
    from cluster.checkpoints import local_checkpoint
    from textscanner.export import METADATA_NAME, compare, export, open_exported

    reader = textscanner.load(local_checkpoint(args.checkpoint))
    images = _drawn() + (_first(args.check) if args.check else [])
    out = pathlib.Path(args.out)
    path = export(reader, args.format, out, args.half)
    found = compare(reader, open_exported(path), images)
    print(
        f"{path}  ({_megabytes(path):.1f} MB, {METADATA_NAME} beside it)\n"
        f"{found.num_words} images read by both: {found.num_different} words differ, "
        f"confidences by at most {found.confidence_gap:.1e}"
    )
    if args.format == "onnx":
        print(f"next: python docs/read_onnx.py {path} YOUR_WORD_IMAGE")
    return 1 if found.num_different else 0


def _drawn() -> list[np.ndarray]:
    from textscanner.images import decode
    from textscanner.render.draw import RenderSettings, render_word
    from textscanner.render.fonts import find_fonts

    settings = RenderSettings(DRAWN_SEED, find_fonts(), split="all")
    records = [render_word(settings, row) for row in range(DRAWN_WORDS)]
    return [decode(record.image, record.source) for record in records]


def _first(source: str) -> list[np.ndarray]:
    from cluster.evaluation import records_of
    from cluster.storage import absolute_uri
    from textscanner.images import decode

    records, _ = records_of(absolute_uri(source))
    return [decode(record.image, record.source) for record in itertools.islice(records, CHECKED_WORDS)]


def _megabytes(path: pathlib.Path) -> float:
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return sum(p.stat().st_size for p in files) / 1e6


if __name__ == "__main__":
    sys.exit(main())
