"""`textscanner train`: trains a preset on prepared data sets, or resumes the run of that name."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence

from jobs.cli import HelpFormatter, add_run_arguments, cli_errors, program, run_spec


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("train"),
        description="Trains a TextScanner over one or more workers. Re-run the same command to resume.",
        epilog="Any config value can be set: --set train.num_steps=5000 optimizer.learning_rate=1e-3; "
        "--dry-run prints them all.",
        formatter_class=HelpFormatter,
    )
    add_run_arguments(parser)
    parser.add_argument("--workers", type=int, metavar="N", help="training workers (train.workers)")
    parser.add_argument("--dry-run", action="store_true", help="print the config and the batch sizes, without training")
    return parser


@cli_errors(_parser)
def main(argv: Sequence[str] | None = None) -> int:
    """Trains; returns the exit code: 0 done, 1 the run failed, 2 invalid arguments."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(arguments)
    spec = run_spec(args, args.workers)
    from cluster.errors import RunError
    from cluster.train.launch import describe, train_run

    if args.dry_run:
        print(json.dumps(spec.flat_sections(), indent=2))
    print("\n".join(describe(spec)), flush=True)
    if args.dry_run:
        return 0
    resume = f"{program('train')} {shlex.join(arguments)}"
    print(f"resume  {resume}", flush=True)
    try:
        result = train_run(spec, args.storage, args.name)
    except RunError as error:
        print(f"the run failed: {error}\nresume from the last checkpoint:\n  {resume}", file=sys.stderr)
        return 1
    _print_result(result.metrics, result.checkpoint, result.run_root, spec.config.data.val)
    return 0


def _print_result(metrics: Mapping[str, float], checkpoint: str, run_root: str, val: Sequence[str]) -> None:
    from textscanner.config import WORD_ACCURACY

    for name, value in sorted(metrics.items()):
        if name.endswith(WORD_ACCURACY):
            print(f"  {name:<40} {value:.1%}")
    print(f"best checkpoint  {checkpoint}\ncurves           tensorboard --logdir {run_root}/tensorboard")
    print(f"next: {program('evaluate')} {checkpoint} {' '.join(val) or 'DATASET'}")


if __name__ == "__main__":
    sys.exit(main())
