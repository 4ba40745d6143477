"""`textscanner evaluate`: scores a checkpoint on data sets."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jobs.cli import add_reading_arguments, cli_errors, program, vocabulary_of

if TYPE_CHECKING:  # importing it loads TensorFlow
    from cluster.evaluate.evaluation import DatasetScore

CONFUSIONS_SHOWN = 12


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("evaluate"),
        description="Scores a checkpoint on letters and digits, case-insensitively, as published benchmarks do. Also "
        "reports case-sensitive and exact word accuracy, accuracy by word length, confused characters and calibration, "
        "and scores other recognizers for comparison.",
    )
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a checkpoint, a run (its best checkpoint; folders or s3:// URIs), or bundled weights: small",
    )
    parser.add_argument(
        "datasets",
        nargs="+",
        metavar="DATASET",
        help="a prepared data set, or labelled images in a format that the prepare command reads; "
        "NAME=DATASET names it in the table and the JSON",
    )
    parser.add_argument("--json", metavar="FILE", help="write the scores to FILE")
    parser.add_argument("--mistakes-png", metavar="FILE", help="draw the most confident mistakes to FILE, a PNG")
    parser.add_argument("--split", metavar="NAME", help="only rows of this split (formats with splits)")
    add_reading_arguments(parser)
    parser.add_argument(
        "--baseline",
        action="append",
        default=[],
        metavar="NAME",
        help="also score another recognizer: rapidocr or tesseract (repeatable)",
    )
    parser.add_argument(
        "--onnx", action="store_true", help="evaluate the checkpoint's model.onnx, which the read command uses"
    )
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="number of Ray actors, for large prepared data sets"
    )
    return parser


@cli_errors(_parser)
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates; returns the exit code."""
    args = _parser().parse_args(argv)
    from cluster.logs import load_tensorflow

    load_tensorflow()
    from cluster.evaluate.evaluation import RecognizerSpec, evaluate
    from textscanner.inference.lexicon import load_lexicon

    lexicon = load_lexicon(args.lexicon) if args.lexicon else None
    datasets = dict(_name_and_source(argument) for argument in args.datasets)
    baselines = [RecognizerSpec(name, is_baseline=True, lexicon=lexicon) for name in args.baseline]
    checkpoint = RecognizerSpec(args.checkpoint, vocabulary=vocabulary_of(args), lexicon=lexicon, use_onnx=args.onnx)
    for baseline in baselines:
        baseline.open()  # a baseline that is not installed fails now, not after the checkpoint was scored
    scores: dict[str, dict[str, DatasetScore]] = {
        recognizer.name: {
            name: evaluate(recognizer, source, split=args.split, num_workers=args.workers)
            for name, source in datasets.items()
        }
        for recognizer in (checkpoint, *baselines)
    }
    own_scores = scores[args.checkpoint]
    _print_table(scores, {args.checkpoint: f", vocabulary {checkpoint.vocabulary}"})
    _print_details(own_scores)
    if args.mistakes_png:
        _draw_mistakes(own_scores, pathlib.Path(args.mistakes_png))
    if args.json:
        _write_json(own_scores, {name: scores[name] for name in args.baseline}, pathlib.Path(args.json))
    return 0


def _name_and_source(argument: str) -> tuple[str, str]:
    """The parts of `NAME=DATASET`; a path that contains "=" is no such pair and names itself."""
    name, equals, source = argument.partition("=")
    return (name, source) if equals and "/" not in name else (argument, argument)


def _print_table(scores: Mapping[str, Mapping[str, DatasetScore]], notes: Mapping[str, str]) -> None:
    """Prints a row per data set and recognizer.

    Args:
      scores: by recognizer, then by data set.
      notes: text after a recognizer's name.
    """
    from rich.console import Console
    from rich.table import Column, Table

    from cluster.evaluate.short_names import short_names

    # Names are folded, not cut, where the terminal is narrow.
    names = (Column("data set", overflow="fold"), Column("read by", overflow="fold"))
    table = Table(*names, "words", "word accuracy", "1 - NED", "ECE", "words/s")
    short_name_of = short_names(next(iter(scores.values())))
    for name in short_name_of:
        for recognizer, score_by_dataset in scores.items():
            score = score_by_dataset[name]
            counts, calibration_error = score.counts, score.error_analysis.calibration_error
            percentages = (f"{x:.1%}" for x in (counts.word_accuracy, counts.one_minus_ned, calibration_error))
            label = recognizer.rstrip("/").rpartition("/")[2] + notes.get(recognizer, "")
            table.add_row(
                short_name_of[name], label, f"{counts.num_words:,.0f}", *percentages, f"{score.words_per_second:,.0f}"
            )
    Console().print(table)


def _print_details(scores: Mapping[str, DatasetScore]) -> None:
    from textscanner.evaluation.error_analysis import ErrorAnalysis

    for name, score in scores.items():
        counts = score.counts
        print(
            f"{name}: characters {counts.char_accuracy:.1%}, length {counts.length_accuracy:.1%}, "
            f"case-sensitive {_share(counts.word_accuracy_cased, counts.num_cased)}, "
            f"exact {_share(counts.word_accuracy_exact, counts.num_exact)}, broken images {score.num_broken}"
        )
    total = sum((score.error_analysis for score in scores.values()), ErrorAnalysis())
    lengths = "  ".join(f"{n}: {accuracy:.0%} of {words}" for n, words, accuracy in total.lengths())
    pairs = total.confusions.most_common(CONFUSIONS_SHOWN)
    confused = "  ".join(f"{truth or '+'}>{read or '-'} {count}" for (truth, read), count in pairs)
    print(f"by length  {lengths}\nconfused   {confused or 'nothing'}   (+ inserted, - missed)")


def _share(accuracy: float, num_words: float) -> str:
    """An accuracy in 0..1 with the number of its words: the case of some labels is not known."""
    return f"{accuracy:.1%} of {num_words:,.0f}" if num_words else "- (no label with case)"


def _draw_mistakes(scores: Mapping[str, DatasetScore], path: pathlib.Path) -> None:
    from cluster.evaluate.evaluation import MAX_MISTAKES
    from textscanner.evaluation.visualization import encode_png, mistakes_sheet

    worst = sorted((m for score in scores.values() for m in score.mistakes), reverse=True)[:MAX_MISTAKES]
    if not worst:
        print("no mistakes to draw")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(mistakes_sheet([(m.image, m.truth, m.reading, m.confidence) for m in worst])))
    print(f"mistakes: {path}")


def _write_json(
    scores: Mapping[str, DatasetScore], baseline_scores: Mapping[str, Mapping[str, DatasetScore]], path: pathlib.Path
) -> None:
    report: dict[str, object] = {"datasets": _as_dicts(scores)}
    if baseline_scores:
        report["baselines"] = {name: _as_dicts(by_dataset) for name, by_dataset in baseline_scores.items()}
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False))
    print(f"scores: {path}")


def _as_dicts(scores: Mapping[str, DatasetScore]) -> dict[str, object]:
    return {name: score.as_dict() for name, score in scores.items()}


if __name__ == "__main__":
    sys.exit(main())
