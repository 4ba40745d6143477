"""`python -m jobs.train`: trains a preset on prepared data sets, resuming where the same name left off."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence

from jobs.command import user_mistakes

NO_INIT = "none"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.train",
        description="Trains a TextScanner over one or more workers. The same command goes on where a run ended.",
        epilog="Any value of the config can be set: --set train.num_steps=5000 optimizer.learning_rate=1e-3; "
        "--dry-run prints them all.",
    )
    parser.add_argument("preset", metavar="PRESET", help="paper, small or tiny (textscanner/presets.py)")
    parser.add_argument("--train", nargs="+", required=True, metavar="URI", help="prepared data sets to train on")
    parser.add_argument("--val", nargs="+", default=[], metavar="URI", help="prepared data sets to validate on")
    parser.add_argument("--storage", required=True, metavar="URI", help="where runs are kept")
    parser.add_argument("--name", required=True, metavar="NAME", help="the run's folder in --storage")
    parser.add_argument(
        "--init",
        metavar="URI",
        help="start with the weights of this checkpoint, or of a name that the package brings, or none for random "
        "ones; if not given, the package's weights of the preset's name if there are any: small",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="training workers; train.workers")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="section.key=value")
    parser.add_argument(
        "--charset-file", metavar="FILE", help="characters to read; 0-9a-z, case-insensitive, if not given"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the config and the arithmetic, train nothing")
    return parser


@user_mistakes
def main(argv: Sequence[str] | None = None) -> int:
    """Trains; returns the exit code: 0 done, 1 the run failed, 2 a mistake in the command."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    config = _config(args)
    from cluster.errors import RunError
    from cluster.launch import describe, train_run

    if args.dry_run:
        print(json.dumps(config.to_dict(), indent=2))
    print("\n".join(describe(config)), flush=True)
    if args.dry_run:
        return 0
    resume = f"python -m jobs.train {shlex.join(given)}"
    print(f"resume  {resume}", flush=True)
    try:
        result = train_run(config, args.storage, args.name)
    except RunError as error:
        print(f"the run failed: {error}\nit goes on from its last checkpoint with:\n  {resume}", file=sys.stderr)
        return 1
    _conclude(result.metrics, result.checkpoint, result.run_root, config.data.val)
    return 0


def _config(args: argparse.Namespace):  # noqa: ANN202 (Config is imported late)
    from textscanner.charset import load_charset
    from textscanner.config import override
    from textscanner.layout import shipped_weights
    from textscanner.presets import preset

    config = preset(args.preset)
    if args.charset_file:
        config = dataclasses.replace(config, charset=load_charset(args.charset_file))
    told = [f"data.train={json.dumps(args.train)}", f"data.val={json.dumps(args.val)}"]
    init = args.init or (args.preset if args.preset in shipped_weights() else NO_INIT)
    told.append(f"train.init={'' if init == NO_INIT else init}")
    if args.workers is not None:
        told.append(f"train.workers={args.workers}")
    return override(config, told + args.set)


def _conclude(metrics: dict[str, float], checkpoint: str, run_root: str, val: Sequence[str]) -> None:
    for name, value in sorted(metrics.items()):
        if name.endswith("word_accuracy"):
            print(f"  {name:<40} {value:.1%}")
    print(f"best checkpoint  {checkpoint}\ncurves           tensorboard --logdir {run_root}/tensorboard")
    print(f"next: python -m jobs.evaluate {checkpoint} {' '.join(val) or 'DATASET'}")


if __name__ == "__main__":
    sys.exit(main())
