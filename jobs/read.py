"""`textscanner read`: reads word images.

Threads decode the next batch of files while the network reads the current one, so at most two batches of BATCH_SIZE
images are in memory.
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

from jobs.cli import HelpFormatter, add_reading_arguments, cli_errors, program, vocabulary_of
from textscanner.checkpoint_files import DEFAULT_WEIGHTS, shipped_weights
from textscanner.data.image_files import IMAGE_SUFFIXES, is_image_name
from textscanner.errors import UserError

if TYPE_CHECKING:  # importing them takes too long for --help
    import numpy as np

    from textscanner.inference.onnx_reader import OnnxReader
    from textscanner.inference.postprocess import Reading
    from textscanner.inference.reader import Reader

BATCH_SIZE = 256


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("read"), description="Reads images that show one word each.", formatter_class=HelpFormatter
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", help="image files, or folders of image files")
    parser.add_argument(
        "--checkpoint",
        default=DEFAULT_WEIGHTS,
        metavar="URI",
        help="a checkpoint, a run (its best checkpoint; folders or s3:// URIs), or the name of bundled weights",
    )
    add_reading_arguments(parser)
    parser.add_argument(
        "--overlay",
        metavar="DIR",
        help="save copies of the images to DIR, with the characters and their order drawn on them",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line, with positions in pixels")
    return parser


@cli_errors(_parser)
def main(argv: Sequence[str] | None = None) -> int:
    """Reads; returns 0, or 1 if an image could not be decoded."""
    args = _parser().parse_args(argv)
    paths = _image_paths(args.images)
    from textscanner.inference.lexicon import load_lexicon

    lexicon = load_lexicon(args.lexicon) if args.lexicon else None
    reader = _open_reader(args.checkpoint, vocabulary_of(args))
    num_broken = 0
    for batch in _image_batches(paths):
        images = []
        for path, image in batch:
            if isinstance(image, Exception):
                print(f"skipped: {image}", file=sys.stderr)
                num_broken += 1
            else:
                images.append((path, image))
        readings = reader.read([image for _, image in images])
        for (path, image), reading in zip(images, readings, strict=True):
            result = lexicon.nearest(reading) if lexicon else reading
            _print_reading(path, result, as_json=args.json)
            if args.overlay:
                _write_overlay(pathlib.Path(args.overlay) / f"{path.stem}.png", image, result)
    return 1 if num_broken else 0


def _open_reader(checkpoint: str, vocabulary: str) -> Reader | OnnxReader:
    """The reader of a checkpoint; for bundled weights the ONNX one, which needs neither TensorFlow nor storage."""
    import textscanner

    if checkpoint in shipped_weights():
        return textscanner.load_fast(checkpoint, vocabulary)
    from cluster.logs import load_tensorflow
    from cluster.storage.checkpoints import fetch_checkpoint

    folder = fetch_checkpoint(checkpoint)
    load_tensorflow()
    return textscanner.load(folder, vocabulary)


def _image_paths(arguments: Sequence[str]) -> list[pathlib.Path]:
    """The image files; a folder stands for the images below it, sorted by path.

    Raises:
      UserError: a path does not exist, or a folder holds no image.
    """
    paths: list[pathlib.Path] = []
    for argument in arguments:
        path = pathlib.Path(argument)
        if not path.exists():
            raise UserError(f"{argument} does not exist: give image files, or folders of image files")
        files = sorted(p for p in path.rglob("*") if is_image_name(p.name)) if path.is_dir() else [path]
        if not files:
            raise UserError(
                f"{argument} holds no image ({', '.join(IMAGE_SUFFIXES)}); name a checkpoint with --checkpoint"
            )
        paths += files
    return paths


def _image_batches(paths: Sequence[pathlib.Path]) -> Iterator[list[tuple[pathlib.Path, np.ndarray | Exception]]]:
    """The files in order, BATCH_SIZE at a time: each path with its image, or with the error that decoding it raised."""
    batches = [paths[start : start + BATCH_SIZE] for start in range(0, len(paths), BATCH_SIZE)]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        prefetched = threads.map(_decode, batches[0])
        for batch, next_batch in zip(batches, [*batches[1:], []], strict=True):
            images = list(prefetched)
            prefetched = threads.map(_decode, next_batch)  # runs while the caller reads `images`
            yield list(zip(batch, images, strict=True))


def _decode(path: pathlib.Path) -> np.ndarray | Exception:
    from textscanner.data.images import decode

    try:
        return decode(path.read_bytes(), str(path))
    except (OSError, ValueError) as error:
        return error


def _print_reading(path: pathlib.Path, reading: Reading, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"file": str(path), **dataclasses.asdict(reading)}, ensure_ascii=False))
    else:
        print(f"{path}\t{reading.text}\t{reading.confidence:.2f}")


def _write_overlay(path: pathlib.Path, image: np.ndarray, reading: Reading) -> None:
    """Writes the image (uint8 RGB [H, W, 3]) with the reading drawn on it as a PNG."""
    import cv2

    from textscanner.evaluation.visualization import overlay

    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), overlay(image, reading)[..., ::-1])  # OpenCV writes BGR


if __name__ == "__main__":
    sys.exit(main())
