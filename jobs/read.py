"""`python -m jobs.read`: reads word images.

Threads decode the next files while the network reads the ones before: only twice READ_AT_ONCE images are in memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from jobs.command import Help, add_word_arguments, cli_errors, vocabulary_of
from textscanner.checkpoint_files import DEFAULT_WEIGHTS, shipped_weights
from textscanner.data.image_files import IMAGE_SUFFIXES, is_image_name

if TYPE_CHECKING:
    import numpy as np

    from textscanner.inference.onnx_reader import OnnxReader
    from textscanner.inference.reader import Reader

READ_AT_ONCE = 256


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.read", description="Reads images that show one word each.", formatter_class=Help
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", help="image files, or folders of them")
    parser.add_argument(
        "--checkpoint",
        default=DEFAULT_WEIGHTS,
        metavar="URI",
        help="a checkpoint, a run for its best one (folders or s3:// URIs), or weights that the package brings",
    )
    add_word_arguments(parser)
    parser.add_argument("--overlay", metavar="DIR", help="draw the characters and their order on copies there")
    parser.add_argument("--json", action="store_true", help="a JSON object a line, with character positions in pixels")
    return parser


@cli_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Reads; returns 0, or 1 if an image could not be opened."""
    args = _parser().parse_args(argv)
    paths = _images(args.images)
    from textscanner.inference.lexicon import load_lexicon

    lexicon = load_lexicon(args.lexicon) if args.lexicon else None
    reader = _reader(args.checkpoint, vocabulary_of(args))
    failed = 0
    for files in _opened(paths):
        broken = [found for _, found in files if isinstance(found, Exception)]
        for error in broken:
            print(f"set aside: {error}", file=sys.stderr)
        failed += len(broken)
        known = [(path, found) for path, found in files if not isinstance(found, Exception)]
        readings = reader.read([image for _, image in known])
        for (path, image), found in zip(known, readings, strict=True):
            reading = lexicon.nearest(found) if lexicon else found
            if args.json:
                print(json.dumps({"file": str(path), **dataclasses.asdict(reading)}, ensure_ascii=False))
            else:
                print(f"{path}\t{reading.text}\t{reading.confidence:.2f}")
            if args.overlay:
                _write_overlay(pathlib.Path(args.overlay) / f"{path.stem}.png", image, reading)
    return 1 if failed else 0


def _reader(checkpoint: str, vocabulary: str) -> Reader | OnnxReader:
    """Weights that the package brings start without TensorFlow and without what talks to storage."""
    import textscanner

    if checkpoint in shipped_weights():
        return textscanner.load_fast(checkpoint, vocabulary)
    from cluster.logs import load_tensorflow
    from cluster.storage.checkpoints import fetch_checkpoint

    folder = fetch_checkpoint(checkpoint)
    load_tensorflow()
    return textscanner.load(folder, vocabulary)


def _images(given: Sequence[str]) -> list[pathlib.Path]:
    """The image files named, folders searched for theirs in order of name.

    Raises:
      ValueError: a path does not exist, or a folder holds no image.
    """
    found: list[pathlib.Path] = []
    for name in given:
        path = pathlib.Path(name)
        if not path.exists():
            raise ValueError(f"{name} does not exist")
        inside = sorted(p for p in path.rglob("*") if is_image_name(p.name)) if path.is_dir() else [path]
        if not inside:
            raise ValueError(
                f"{name} holds no image ({', '.join(IMAGE_SUFFIXES)}); a checkpoint is given with --checkpoint"
            )
        found += inside
    return found


def _opened(paths: Sequence[pathlib.Path]) -> Iterator[list[tuple[pathlib.Path, np.ndarray | Exception]]]:
    """The files in order, READ_AT_ONCE at a time, each with its image or with why there is none."""
    parts = [paths[start : start + READ_AT_ONCE] for start in range(0, len(paths), READ_AT_ONCE)]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        ahead = threads.map(_open, parts[0])
        for part, following in zip(parts, [*parts[1:], []], strict=True):
            images = list(ahead)
            ahead = threads.map(_open, following)
            yield list(zip(part, images, strict=True))


def _open(path: pathlib.Path) -> np.ndarray | Exception:
    from textscanner.data.images import decode

    try:
        return decode(path.read_bytes(), str(path))
    except (OSError, ValueError) as error:
        return error


def _write_overlay(path: pathlib.Path, image, reading) -> None:  # noqa: ANN001
    import cv2

    from textscanner.evaluation.visualization import overlay

    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), overlay(image, reading)[..., ::-1])


if __name__ == "__main__":
    sys.exit(main())
