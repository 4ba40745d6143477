"""`python -m jobs.tune`: searches hyperparameters with Ray Tune; the same command goes on where a sweep ended."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from jobs.command import Help, add_run_arguments, cli_errors, run_spec

WINNER_RUN = "winner"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.tune",
        description="Trains many samples of a search space, stops the bad ones early, and hands over the best.",
        epilog="The longest trial has train.num_steps steps, the shortest train.validate_every_steps: --set them.",
        formatter_class=Help,
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--space",
        default="finetune",
        metavar="NAME|FILE",
        help="finetune, scratch, or a .toml or .yaml file of section.key = { loguniform = [low, high] }, uniform, "
        "randint or { choice = [...] }",
    )
    parser.add_argument("--trials", type=int, default=16, metavar="N", help="how many samples")
    parser.add_argument(
        "--scheduler", default="asha", metavar="NAME", help="asha, hyperband, pbt, median, or fifo: none is stopped"
    )
    parser.add_argument("--search", default="random", metavar="NAME", help="random, tpe (Optuna; learns) or qmc (even)")
    parser.add_argument("--workers-per-trial", type=int, default=1, metavar="N", help="training workers of each trial")
    parser.add_argument("--metric", default="val/word_accuracy", metavar="NAME", help="what best means")
    parser.add_argument("--mode", default="max", choices=("max", "min"), help="of the metric")
    parser.add_argument("--budget-minutes", type=float, metavar="MINUTES", help="end after so long, whatever is left")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the samples")
    parser.add_argument("--retries", type=int, default=1, metavar="N", help="how often a trial that failed is repeated")
    parser.add_argument(
        "--stall-minutes",
        type=float,
        default=10.0,
        metavar="MINUTES",
        help="a trial without a step for so long has failed",
    )
    parser.add_argument("--warm-start", default="", metavar="SWEEP_URI", help="an earlier sweep that tpe learns from")
    parser.add_argument(
        "--retrain", type=int, metavar="STEPS", help="then train the winner anew for so many steps: NAME/winner"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the arithmetic and a few samples, train nothing")
    return parser


@cli_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Sweeps; returns the exit code: 0 done, 1 no trial gave a result, 2 a mistake in the command."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    from cluster.errors import RunError
    from cluster.train.launch import describe
    from cluster.tune.report import write_report
    from cluster.tune.sweep import best_trial, run_sweep

    sweep = _sweep(args)
    print("\n".join([*describe(sweep.spec), *sweep.describe()]), flush=True)
    if args.dry_run:
        return 0
    resume = f"python -m jobs.tune {shlex.join(given)}"
    print(f"resume  {resume}", flush=True)
    try:
        results = run_sweep(sweep)
        best = best_trial(sweep, results)
        command = _command(args, best)
        write_report(sweep, results, best, command)
        _conclude(sweep, results, best, command)
        if args.retrain:
            return _retrain(args, sweep, best)
    except RunError as error:
        print(f"the sweep failed: {error}\nit goes on with:\n  {resume}", file=sys.stderr)
        return 1
    return 0


def _sweep(args: argparse.Namespace) -> Any:
    from cluster.tune.search_space import load_space
    from cluster.tune.sweep import Sweep

    return Sweep(
        spec=run_spec(args, workers=args.workers_per_trial),
        space=load_space(args.space),
        storage_uri=args.storage,
        name=args.name,
        num_trials=args.trials,
        scheduler=args.scheduler,
        search=args.search,
        metric=args.metric,
        mode=args.mode,
        budget_s=None if args.budget_minutes is None else args.budget_minutes * 60,
        seed=args.seed,
        retries=args.retries,
        stall_s=args.stall_minutes * 60,
        warm_start=args.warm_start,
    )


def _command(args: argparse.Namespace, best: Any) -> str:
    """The winner as a training command."""
    told = ["python", "-m", "jobs.train", args.preset, "--train", *args.train, "--val", *args.val]
    told += ["--storage", args.storage, "--name", f"{args.name}-best"]
    told += ["--init", args.init] if args.init else []
    told += ["--workers", str(args.workers_per_trial)]
    told += ["--charset-file", args.charset_file] if args.charset_file else []
    told += ["--set", *args.set, *(f"{key}={value}" for key, value in best.sample.items())]
    return shlex.join(told)


def _conclude(sweep: Any, results: Any, best: Any, command: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("trial", "state", "steps", sweep.metric)
    for record in results.ranked()[:5]:
        table.add_row(record.trial, record.state, str(record.last.step), f"{record.best(sweep.mode).value:.4f}")
    Console().print(table)
    counts = ", ".join(f"{n} {s}" for s in ("finished", "stopped", "failed") if (n := results.count(s)))
    print(f"{len(results.trials)} trials: {counts}; {results.elapsed_s / 60:.0f} min")
    for record in results.trials:
        if record.state == "failed":
            print(f"failed  {record.trial}: {record.error}")
    print(f"best    {best.checkpoint}  {sweep.metric} {best.value:.4f}")
    print(f"why     {sweep.layout.report}\ntable   {sweep.layout.table('csv')}")
    print(f"train it longer:\n  {command}\nnext: python -m jobs.pull {sweep.layout.root} --to best")


def _retrain(args: argparse.Namespace, sweep: Any, best: Any) -> int:
    """The winner's config for more steps, from the start."""
    from cluster.config import override
    from cluster.train.launch import train_run

    spec = override(best.spec, [f"train.num_steps={args.retrain}"])
    print(f"training the winner for {args.retrain} steps", flush=True)
    result = train_run(spec, sweep.layout.root, WINNER_RUN)
    print(f"winner  {result.checkpoint}  {sweep.metric} {result.metrics.get(sweep.metric, 0.0):.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
