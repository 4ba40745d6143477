"""`python -m jobs.evaluate`: scores a checkpoint on data sets."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs.command import add_word_arguments, cli_errors, vocabulary_of

if TYPE_CHECKING:  # importing it loads TensorFlow
    from cluster.evaluate.evaluation import Score

CONFUSIONS_TOLD = 12


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.evaluate",
        description="Scores a checkpoint: case-insensitive, letters and digits only, as the field does; and by length, "
        "by character, by confidence, with case and punctuation, beside other recognisers.",
    )
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a checkpoint, a run for its best one (folders or s3:// URIs), or weights that the package brings: small",
    )
    parser.add_argument(
        "datasets",
        nargs="+",
        metavar="DATASET",
        help="a prepared data set, or labelled images in a format that jobs.prepare knows; "
        "NAME=DATASET gives it a name in the table and the JSON",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--mistakes-png", metavar="FILE", help="draw the most confident mistakes there, as a PNG")
    parser.add_argument("--split", metavar="NAME", help="only rows of this split, of formats with splits")
    add_word_arguments(parser)
    parser.add_argument(
        "--baseline", action="append", default=[], metavar="NAME", help="score this one too: rapidocr or tesseract"
    )
    parser.add_argument("--onnx", action="store_true", help="read with the model.onnx in its folder, as jobs.read does")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="Ray actors, for large prepared sets")
    return parser


@cli_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates; returns the exit code."""
    args = _parser().parse_args(argv)
    from cluster.logs import load_tensorflow

    load_tensorflow()
    from cluster.evaluate.evaluation import Subject, evaluate
    from textscanner.inference.lexicon import load_lexicon

    lexicon = load_lexicon(args.lexicon) if args.lexicon else None
    datasets = dict(_named(given) for given in args.datasets)
    baselines = [Subject(baseline, baseline=True, lexicon=lexicon) for baseline in args.baseline]
    subjects = [Subject(args.checkpoint, vocabulary_of(args), lexicon=lexicon, onnx=args.onnx), *baselines]
    for baseline in baselines:
        baseline.open()  # one that is not installed fails now
    scores: dict[str, dict[str, Score]] = {
        subject.name: {name: evaluate(subject, source, args.split, args.workers) for name, source in datasets.items()}
        for subject in subjects
    }
    own = scores[args.checkpoint]
    _print_table(scores, {args.checkpoint: f", vocabulary {subjects[0].vocabulary}"})
    _print_details(own)
    if args.mistakes_png:
        _draw_mistakes(own, pathlib.Path(args.mistakes_png))
    if args.json:
        told = {"datasets": {name: score.as_dict() for name, score in own.items()}}
        if args.baseline:
            told["baselines"] = {p: {name: score.as_dict() for name, score in scores[p].items()} for p in args.baseline}
        pathlib.Path(args.json).write_text(json.dumps(told, indent=2, ensure_ascii=False))
        print(f"figures: {args.json}")
    return 0


def _named(given: str) -> tuple[str, str]:
    name, equals, source = given.partition("=")
    return (name, source) if equals and "/" not in name else (given, given)


def _print_table(scores: dict[str, dict[str, Score]], notes: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("data set", "read by", "words", "word accuracy", "1 - NED", "ECE", "words/s")
    for name in next(iter(scores.values())):
        for reader, by_set in scores.items():
            score = by_set[name]
            counts, error = score.counts, score.error_analysis.calibration_error
            shares = (f"{share:.1%}" for share in (counts.word_accuracy, counts.one_minus_ned, error))
            shown = reader.rstrip("/").rpartition("/")[2] + notes.get(reader, "")
            table.add_row(name, shown, f"{counts.num_words:,.0f}", *shares, f"{score.words_per_second:,.0f}")
    Console().print(table)


def _print_details(scores: dict[str, Score]) -> None:
    from textscanner.evaluation.error_analysis import ErrorAnalysis

    for name, score in scores.items():
        counts, parts = score.counts, score.error_analysis
        print(
            f"{name}: characters {counts.char_accuracy:.1%}, length {counts.length_accuracy:.1%}, "
            f"with case {parts.cased_accuracy:.1%}, as labelled {parts.exact_accuracy:.1%}, "
            f"broken images {score.num_broken}"
        )
    whole = sum((score.error_analysis for score in scores.values()), ErrorAnalysis())
    lengths = "  ".join(f"{n}: {accuracy:.0%} of {words}" for n, words, accuracy in whole.lengths())
    pairs = whole.confusions.most_common(CONFUSIONS_TOLD)
    told = "  ".join(f"{truth or '+'}>{read or '-'} {count}" for (truth, read), count in pairs)
    print(f"by length  {lengths}\nconfused   {told or 'nothing'}   (+ made up, - missed)")


def _draw_mistakes(scores: dict[str, Score], path: pathlib.Path) -> None:
    from cluster.evaluate.evaluation import MISTAKES_KEPT
    from textscanner.evaluation.visualization import encode_png, mistakes_sheet

    worst = sorted((m for score in scores.values() for m in score.mistakes), reverse=True)[:MISTAKES_KEPT]
    if not worst:
        print("no mistakes to draw")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(mistakes_sheet([(m.image, m.truth, m.reading, m.confidence) for m in worst])))
    print(f"mistakes: {path}")


if __name__ == "__main__":
    sys.exit(main())
