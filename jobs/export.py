"""`textscanner export`: writes a checkpoint as a model file that runs without this package."""

from __future__ import annotations

import argparse
import itertools
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from jobs.cli import HelpFormatter, cli_errors, local_folder, program
from textscanner.errors import UserError

if TYPE_CHECKING:  # importing them loads TensorFlow, or takes too long for --help
    import numpy as np

    from textscanner.data.schema import WordRecord
    from textscanner.export.compare import Comparison

CHECKED_WORDS = 500
RENDERED_WORDS, RENDERED_SEED = 256, 1
CALIBRATION_WORDS, CALIBRATION_SEED = 256, 2
EXAMPLE = "docs/read_onnx.py"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("export"),
        description="Writes a checkpoint as a model with decoding inside (images in; class ids, confidences and "
        "positions out), and verifies that the model reads the same words as the checkpoint.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint, a run, or bundled weights: small")
    parser.add_argument("--format", required=True, choices=("saved_model", "onnx", "litert"), help="target format")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the model and its metadata.json")
    parser.add_argument(
        "--check",
        nargs="+",
        metavar="DATASET",
        help=f"also compare on the first {CHECKED_WORDS} words of each data set, beside noise and rendered words",
    )
    parser.add_argument(
        "--fp16-weights", action="store_true", help="onnx: store weights as float16; computation stays float32"
    )
    parser.add_argument(
        "--int8", action="store_true", help="onnx: quantize convolutions to 8 bits, twice as fast on a CPU"
    )
    parser.add_argument(
        "--calibrate",
        nargs="+",
        metavar="SOURCE",
        help=f"--int8: data sets or folders of images whose words set the quantization ranges, {CALIBRATION_WORDS} in "
        "total (default: rendered words)",
    )
    parser.add_argument(
        "--max-different",
        type=float,
        default=5.0,
        metavar="PERCENT",
        help="--int8: fail if the reading changes for more than this part of the words that the checkpoint is sure of",
    )
    return parser


@cli_errors(_parser)
def main(argv: Sequence[str] | None = None) -> int:
    """Exports; returns 0, or 1 if the exported model reads too many words differently."""
    args = _parser().parse_args(argv)
    if args.calibrate and not args.int8:
        raise UserError("--calibrate is for --int8: give both or neither")
    if args.format != "onnx" and (args.fp16_weights or args.int8):
        raise UserError(f"--format is {args.format}: --fp16-weights and --int8 are for onnx")
    from cluster.logs import load_tensorflow

    load_tensorflow()
    import textscanner
    from cluster.storage.checkpoints import fetch_checkpoint
    from textscanner.export.compare import Comparison, compare, noise
    from textscanner.export.export_model import export, open_exported
    from textscanner.export.metadata import METADATA_NAME

    out = local_folder("--out", args.out)
    # The comparison's reference: exported files compute in float32 whatever the training did.
    reader = textscanner.load(fetch_checkpoint(args.checkpoint)).in_float32()
    calibration = _calibration_images(args.calibrate or ()) if args.int8 else None
    path = export(reader, args.format, out, fp16_weights=args.fp16_weights, calibration=calibration)
    print(f"{path}  ({_megabytes(path):.1f} MB, {METADATA_NAME} beside it)")
    run = open_exported(path)
    total = Comparison()
    if not args.int8:  # rounding may change readings of noise, which does not matter
        total += _print_comparison("noise", compare(reader, run, noise(reader)))
    for name, records in _checked_words(args.check or ()):
        images = [_image(record) for record in records]
        total += _print_comparison(name, compare(reader, run, images, [record.text for record in records]))
    problem = _int8_problem(total, args.max_different) if args.int8 else _problem(total)
    if problem:
        print(f"do not use this model: {problem}", file=sys.stderr)
        return 1
    if args.format == "onnx":
        _print_example(path)
    return 0


def _print_example(model: pathlib.Path) -> None:
    if pathlib.Path(EXAMPLE).is_file():  # wheels do not contain it
        print(f"next: python {EXAMPLE} {model} YOUR_WORD_IMAGE")


def _calibration_images(sources: Sequence[str]) -> list[np.ndarray]:
    """CALIBRATION_WORDS images (uint8 RGB of any size), the same number from each source; rendered if there is none."""
    if not sources:
        return [_image(record) for record in _rendered_words(CALIBRATION_WORDS, CALIBRATION_SEED)]
    num_per_source = -(-CALIBRATION_WORDS // len(sources))
    return [image for source in sources for image in itertools.islice(_images_of(source), num_per_source)]


def _images_of(source: str) -> Iterator[np.ndarray]:
    """The images of a prepared data set, or of a folder without labels: calibration needs none.

    Raises:
      UserError: the folder holds no image.
    """
    from cluster.data.importers.source import open_files
    from cluster.data.shards import is_dataset, read_records
    from cluster.storage.location import absolute_uri
    from textscanner.data.image_files import is_image_name
    from textscanner.data.images import decode

    uri = absolute_uri(source)
    if is_dataset(uri):
        yield from map(_image, read_records(uri))
        return
    files = open_files(uri)
    names = list(filter(is_image_name, files.names()))
    if not names:
        raise UserError(f"--calibrate is {source!r}, which holds no image: give a data set or a folder of images")
    for name in names:
        yield decode(files.read(name), f"{source}/{name}")


def _checked_words(sources: Sequence[str]) -> Iterator[tuple[str, list[WordRecord]]]:
    """Names and words to compare on: rendered words, then the first of each data set."""
    from cluster.evaluate.evaluation import records_of
    from cluster.storage.location import absolute_uri

    yield "rendered words", _rendered_words(RENDERED_WORDS, RENDERED_SEED)
    for source in sources:
        records, _ = records_of(absolute_uri(source))
        yield source, list(itertools.islice(records, CHECKED_WORDS))


def _rendered_words(count: int, seed: int) -> list[WordRecord]:
    from textscanner.render.draw import RenderSettings, render_word
    from textscanner.render.fonts import find_fonts

    settings = RenderSettings(seed=seed, fonts=find_fonts(), split="all")
    return [render_word(settings, row) for row in range(count)]


def _image(record: WordRecord) -> np.ndarray:
    from textscanner.data.images import decode

    return decode(record.image, record.source)


def _print_comparison(name: str, comparison: Comparison) -> Comparison:
    """Prints a line about one set of images; returns the comparison."""
    line = (
        f"  {name}: {comparison.num_words} images, {comparison.num_different} read differently "
        f"({comparison.num_sure_different} of {comparison.num_sure} that the checkpoint is sure of)"
    )
    before, after = comparison.checkpoint_counts, comparison.exported_counts
    if before.num_words:
        line += f", word accuracy {before.word_accuracy:.1%} -> {after.word_accuracy:.1%}"
    print(f"{line}, largest confidence difference of the others {comparison.confidence_gap:.1e}", flush=True)
    return comparison


def _problem(total: Comparison) -> str:
    """Why a float model must not be used; empty if it reads all images as the checkpoint does."""
    return f"{total.num_different} images are read differently by the exported model" if total.num_different else ""


def _int8_problem(total: Comparison, limit_percent: float) -> str:
    """Why a quantized model must not be used; empty if it may.

    Rounding may change words that the checkpoint reads with low confidence, so only the others count.
    """
    if not total.num_sure:
        return "the checkpoint is sure of none of the words, so nothing could be compared; --check words that it reads"
    percent = 100 * total.num_sure_different / total.num_sure
    if percent <= limit_percent:
        return ""
    return f"{percent:.1f} % of the words that the checkpoint is sure of differ: --max-different is {limit_percent:g}"


def _megabytes(path: pathlib.Path) -> float:
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return sum(p.stat().st_size for p in files) / 1e6


if __name__ == "__main__":
    sys.exit(main())
