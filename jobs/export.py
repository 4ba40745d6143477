"""`python -m jobs.export`: a checkpoint as a model that runs without this package."""

from __future__ import annotations

import argparse
import itertools
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jobs.command import Help, cli_errors, local_folder

if TYPE_CHECKING:  # importing them loads TensorFlow, or takes time that --help does not have
    from textscanner.data.schema import WordRecord
    from textscanner.export.export_model import Comparison

CHECKED_WORDS = 500
DRAWN_WORDS, DRAWN_SEED = 256, 1
CALIBRATION_WORDS, CALIBRATION_SEED = 256, 2


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
        nargs="+",
        metavar="DATASET",
        help=f"compare on the first {CHECKED_WORDS} words of each too, not only on noise and drawn words",
    )
    parser.add_argument(
        "--fp16-weights", action="store_true", help="onnx: weights stored as float16, computed with as float32"
    )
    parser.add_argument("--int8", action="store_true", help="onnx: convolutions in 8 bits, twice as fast on a CPU")
    parser.add_argument(
        "--calibrate",
        nargs="+",
        metavar="DATASET_OR_FOLDER",
        help=f"--int8: words that set its ranges, {CALIBRATION_WORDS} in equal parts; drawn ones if not given",
    )
    parser.add_argument(
        "--max-different",
        type=float,
        default=5.0,
        metavar="PERCENT",
        help="--int8: fail if more of the words that the checkpoint is sure of are read differently",
    )
    return parser


@cli_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Exports; returns 0, or 1 if the exported model reads too many words differently."""
    args = _parser().parse_args(argv)
    if args.calibrate and not args.int8:
        raise ValueError("--calibrate is for --int8: give both or neither")
    from cluster.logs import load_tensorflow

    load_tensorflow()
    import textscanner
    from cluster.storage.checkpoints import fetch_checkpoint
    from textscanner.export.export_model import METADATA_NAME, Comparison, compare, export, noise, open_exported

    out = local_folder("--out", args.out)
    reader = textscanner.load(fetch_checkpoint(args.checkpoint)).in_float32()  # what the file must read like
    path = export(reader, args.format, out, args.fp16_weights, _calibration(args) if args.int8 else None)
    print(f"{path}  ({_megabytes(path):.1f} MB, {METADATA_NAME} beside it)")
    run = open_exported(path)
    total = Comparison()
    if not args.int8:  # which reads noise as it likes
        total += _told("noise", compare(reader, run, noise(reader)))
    for name, records in _checked(args.check or ()):
        images = [_image(record) for record in records]
        total += _told(name, compare(reader, run, images, [record.text for record in records]))
    wrong = _wrong_in_int8(total, args.max_different) if args.int8 else _wrong(total)
    if wrong:
        print(f"do not use this model: {wrong}", file=sys.stderr)
        return 1
    if args.format == "onnx":
        print(f"next: python docs/read_onnx.py {path} YOUR_WORD_IMAGE")
    return 0


def _calibration(args: argparse.Namespace) -> list[np.ndarray]:
    if not args.calibrate:
        return [_image(record) for record in _drawn(CALIBRATION_WORDS, CALIBRATION_SEED)]
    each = -(-CALIBRATION_WORDS // len(args.calibrate))
    return [image for source in args.calibrate for image in itertools.islice(_images_of(source), each)]


def _images_of(source: str) -> Iterator[np.ndarray]:
    """The images of a prepared data set, or of a folder: labels do not matter here."""
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
        raise ValueError(f"--calibrate is {source!r}, which holds no image: give a data set or a folder of words")
    for name in names:
        yield decode(files.read(name), f"{source}/{name}")


def _checked(sources: Sequence[str]) -> Iterator[tuple[str, list[WordRecord]]]:
    from cluster.evaluate.evaluation import records_of
    from cluster.storage.location import absolute_uri

    yield "drawn words", _drawn(DRAWN_WORDS, DRAWN_SEED)
    for source in sources:
        records, _ = records_of(absolute_uri(source))
        yield source, list(itertools.islice(records, CHECKED_WORDS))


def _drawn(count: int, seed: int) -> list[WordRecord]:
    from textscanner.render.draw import RenderSettings, render_word
    from textscanner.render.fonts import find_fonts

    settings = RenderSettings(seed=seed, fonts=find_fonts(), split="all")
    return [render_word(settings, row) for row in range(count)]


def _image(record: WordRecord) -> np.ndarray:
    from textscanner.data.images import decode

    return decode(record.image, record.source)


def _told(name: str, found: Comparison) -> Comparison:
    line = (
        f"  {name}: {found.num_words} images, {found.num_different} read differently "
        f"({found.num_sure_different} of {found.num_sure} that the checkpoint is sure of)"
    )
    if found.wanted.num_words:
        line += f", word accuracy {found.wanted.word_accuracy:.1%} -> {found.got.word_accuracy:.1%}"
    print(f"{line}, confidences of the others by at most {found.confidence_gap:.1e}", flush=True)
    return found


def _wrong(total: Comparison) -> str:
    return f"{total.num_different} images are read differently than by the checkpoint" if total.num_different else ""


def _wrong_in_int8(total: Comparison, limit_percent: float) -> str:
    """Words that the network is not sure of may change with rounding; there are none to hold it to but the others."""
    if not total.num_sure:
        return (
            "the checkpoint is sure of no word that was read, so nothing could be checked; --check words that it reads"
        )
    share = 100 * total.num_sure_different / total.num_sure
    if share <= limit_percent:
        return ""
    return f"{share:.1f} % of the words that the checkpoint is sure of differ: --max-different is {limit_percent:g}"


def _megabytes(path: pathlib.Path) -> float:
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return sum(p.stat().st_size for p in files) / 1e6


if __name__ == "__main__":
    sys.exit(main())
