"""`textscanner tune`: searches hyperparameters with Ray Tune, or resumes the sweep of that name."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from cluster.tune.options import DEFAULT_MODE, DEFAULT_SCHEDULER, DEFAULT_SEARCH, Mode, SchedulerName, SearchName
from jobs.cli import HelpFormatter, add_run_arguments, cli_errors, program, run_spec
from textscanner.config import BEST_METRIC

if TYPE_CHECKING:  # importing them loads Ray
    from cluster.tune.results import SweepResults
    from cluster.tune.sweep import BestTrial, Sweep

WINNER_RUN = "winner"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("tune"),
        description="Trains samples of a search space as trials, stops bad trials early and reports the best one. "
        "Re-run the same command to resume.",
        epilog="A trial takes train.validate_every_steps to train.num_steps steps: change them with --set.",
        formatter_class=HelpFormatter,
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--space",
        default="finetune",
        metavar="NAME|FILE",
        help="search space: finetune, scratch, or a .toml or .yaml file of section.key = { loguniform = [low, high] }, "
        "uniform, randint or { choice = [...] }",
    )
    parser.add_argument("--trials", type=int, default=16, metavar="N", help="number of trials")
    parser.add_argument(
        "--scheduler",
        default=DEFAULT_SCHEDULER,
        metavar="NAME",
        help=f"early stopping: {', '.join(get_args(SchedulerName))}; fifo stops none",
    )
    parser.add_argument(
        "--search",
        default=DEFAULT_SEARCH,
        metavar="NAME",
        help=f"sampling: {', '.join(get_args(SearchName))}; tpe is Optuna's, qmc quasi-random",
    )
    parser.add_argument("--workers-per-trial", type=int, default=1, metavar="N", help="training workers of each trial")
    parser.add_argument("--metric", default=BEST_METRIC, metavar="NAME", help="metric that ranks the trials")
    parser.add_argument("--mode", default=DEFAULT_MODE, choices=get_args(Mode), help="maximize or minimize the metric")
    parser.add_argument(
        "--budget-minutes", type=float, metavar="MINUTES", help="time limit of the sweep; unfinished trials are stopped"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the samples")
    parser.add_argument("--retries", type=int, default=1, metavar="N", help="retries of a failed trial")
    parser.add_argument(
        "--stall-minutes",
        type=float,
        default=10.0,
        metavar="MINUTES",
        help="stall timeout: a trial without a training step for this long has failed",
    )
    parser.add_argument(
        "--warm-start", default="", metavar="SWEEP_URI", help="earlier sweep whose results tpe starts from"
    )
    parser.add_argument(
        "--retrain", type=int, metavar="STEPS", help="afterwards train the best config for STEPS steps, as NAME/winner"
    )
    parser.add_argument("--dry-run", action="store_true", help="print trials, steps and budget, without training")
    return parser


@cli_errors(_parser)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the sweep; returns the exit code: 0 done, 1 no trial reported a result, 2 invalid arguments."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(arguments)
    from cluster.errors import RunError
    from cluster.train.launch import describe
    from cluster.tune.report import write_report
    from cluster.tune.sweep import best_trial, run_sweep

    sweep = _sweep(args)
    print("\n".join([*describe(sweep.spec), *sweep.describe()]), flush=True)
    if args.dry_run:
        return 0
    resume = f"{program('tune')} {shlex.join(arguments)}"
    print(f"resume  {resume}", flush=True)
    try:
        results = run_sweep(sweep)
        best = best_trial(sweep, results)
        command = _training_command(args, best)
        write_report(sweep, results, best, command)
        _print_result(sweep, results, best, command)
        if args.retrain:
            _retrain(sweep, best, args.retrain)
    except RunError as error:
        print(f"the sweep failed: {error}\nresume:\n  {resume}", file=sys.stderr)
        return 1
    return 0


def _sweep(args: argparse.Namespace) -> Sweep:
    from cluster.tune.search_space import load_space
    from cluster.tune.sweep import Sweep

    return Sweep(
        spec=run_spec(args, args.workers_per_trial),
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


def _training_command(args: argparse.Namespace, best: BestTrial) -> str:
    """The command that trains the best trial's config on its own."""
    words = [*program("train").split(), args.preset, "--train", *args.train, "--val", *args.val]
    words += ["--storage", args.storage, "--name", f"{args.name}-best"]
    words += ["--init", args.init] if args.init else []
    words += ["--workers", str(args.workers_per_trial)]
    words += ["--charset-file", args.charset_file] if args.charset_file else []
    words += ["--set", *args.set, *(f"{key}={value}" for key, value in best.sample.items())]
    return shlex.join(words)


def _print_result(sweep: Sweep, results: SweepResults, best: BestTrial, command: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("trial", "state", "steps", sweep.metric)
    for record in results.ranked()[:5]:
        last, best_point = record.last, record.best(sweep.mode)
        assert last and best_point, "only trials with a result are ranked"
        table.add_row(record.trial, record.state, str(last.step), f"{best_point.value:.4f}")
    Console().print(table)
    counts = ", ".join(f"{n} {s}" for s in ("finished", "stopped", "failed") if (n := results.count(s)))
    print(f"{len(results.trials)} trials: {counts}; {results.elapsed_s / 60:.0f} min")
    for record in results.trials:
        if record.state == "failed":
            print(f"failed  {record.trial}: {record.error}")
    print(f"best    {best.checkpoint}  {sweep.metric} {best.value:.4f}")
    print(f"report  {sweep.layout.report}\ntable   {sweep.layout.table('csv')}")
    print(f"train it longer:\n  {command}\nnext: {program('pull')} {sweep.layout.root} --to best")


def _retrain(sweep: Sweep, best: BestTrial, num_steps: int) -> None:
    """Trains the best config for more steps, from its initial weights."""
    from cluster.config import override
    from cluster.train.launch import train_run

    spec = override(best.spec, [f"train.num_steps={num_steps}"])
    print(f"training the best config for {num_steps} steps", flush=True)
    result = train_run(spec, sweep.layout.root, WINNER_RUN)
    print(f"winner  {result.checkpoint}  {sweep.metric} {result.metrics.get(sweep.metric, 0.0):.4f}")


if __name__ == "__main__":
    sys.exit(main())
