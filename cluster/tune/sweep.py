"""`run_sweep`: Ray Tune over `train_run`, from a checked space to a winner that can be pulled.

Each trial is a distributed run in a folder of its own below the sweep's (`cluster/tune/trial.py`). Tune keeps its own
state beside them, after every report; the same call goes on from it, whatever ended the last one. How many trials
run at once follows from what one needs and what the cluster has: trials that wait for each other's CPUs half started
would wait for ever.
"""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from typing import Any, Literal

from ray import tune

from cluster.config import RunSpec
from cluster.data.ingest import validation_metrics
from cluster.errors import RunError
from cluster.session import cluster_limits, local_session
from cluster.storage.location import Location, absolute_uri, open_uri
from cluster.storage.run_layout import TUNE_NAME, SweepLayout
from cluster.train.launch import check_start, cpus_wanted, describe, with_absolute_uris
from cluster.tune.callback import Budget, SweepCallback
from cluster.tune.results import SweepResults, TrialRecord, load_results
from cluster.tune.schedulers import PBT, ResumableASHA, ResumableMedian
from cluster.tune.search_space import Sample, SearchSpace, Value, check_space
from cluster.tune.trial import TrialSettings, run_trial
from textscanner.config import BEST_METRIC, Config, difference

SCHEDULERS = ("asha", "hyperband", "pbt", "median", "fifo")
SEARCHES = ("random", "tpe", "qmc")
REDUCTION = 3  # ASHA and hyperband: the best third goes on
# Without a GPU, cores of one machine are only a count; a trial's own process waits nearly all the time.
TRIAL_CPUS = 0.01
SHARED_CACHE = "~/.cache/textscanner"  # on every node, at most data.cache_gib
# PBT based training changes a running trial: only what does not shape the network.
CHANGEABLE_SECTIONS = ("optimizer", "losses", "data")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What is asked for.

    Attributes:
      spec: what trials start from; `train.num_steps` is the longest trial, `train.validate_every_steps` the shortest.
      num_trials: samples.
      scheduler: `asha` stops the worst two thirds early, at validate_every_steps x 3^k steps; `hyperband` spares some
        trials the first of these; `median` those below it; `pbt` restarts bad trials from good ones' checkpoints;
        `fifo` runs all to the end.
      search: `random`, Optuna's `tpe` (learns from finished trials) or `qmc` (evenly spread).
      budget_s: the sweep ends after so long; None for when its trials are done.
      retries: how often a trial that failed is tried again.
      stall_s: a trial that takes no step for so long has failed.
      warm_start: URI of an earlier sweep whose trials `tpe` learns from first; empty for none.
    """

    spec: RunSpec
    space: SearchSpace
    storage_uri: str
    name: str
    num_trials: int
    scheduler: Literal["asha", "hyperband", "pbt", "median", "fifo"] = "asha"
    search: Literal["random", "tpe", "qmc"] = "random"
    metric: str = BEST_METRIC
    mode: Literal["max", "min"] = "max"
    budget_s: float | None = None
    seed: int = 0
    retries: int = 1
    stall_s: float = 600.0
    warm_start: str = ""

    def __post_init__(self) -> None:
        shortest, longest = self.config.train.validate_every_steps, self.config.train.num_steps
        checks = (
            (self.num_trials >= 1, "--trials", self.num_trials, "must be at least 1"),
            (self.scheduler in SCHEDULERS, "--scheduler", self.scheduler, f"one of {', '.join(SCHEDULERS)}"),
            (self.search in SEARCHES, "--search", self.search, f"one of {', '.join(SEARCHES)}"),
            (self.mode in ("max", "min"), "--mode", self.mode, "max or min"),
            (self.budget_s is None or self.budget_s > 0, "--budget-minutes", self.budget_s, "must be positive"),
            (self.retries >= 0, "--retries", self.retries, "must not be negative"),
            (self.stall_s > 0, "--stall-minutes", self.stall_s, "must be positive"),
            (
                shortest <= longest,
                "train.validate_every_steps",
                shortest,
                f"must not exceed train.num_steps ({longest})",
            ),
        )
        for holds, name, value, rule in checks:
            if not holds:
                raise ValueError(f"{name} is {value!r}: {rule}")
        known = validation_metrics(self.config.data.val)
        if self.metric not in known:
            why = f"there are {', '.join(known)}" if known else "no --val is given, so nothing is validated"
            raise ValueError(f"--metric is {self.metric!r}: no trial would report it; {why}")
        if self.scheduler == "pbt":
            if self.search != "random":
                raise ValueError(f"--scheduler pbt changes values itself: it needs --search random, not {self.search}")
            shaping = [key for key in self.space.domains if key.partition(".")[0] not in CHANGEABLE_SECTIONS]
            if shaping:
                raise ValueError(
                    f"--scheduler pbt cannot vary {', '.join(shaping)}: it changes trials as they run; "
                    f"vary keys of {', '.join(CHANGEABLE_SECTIONS)}, or take asha"
                )
        if self.warm_start and self.search != "tpe":
            raise ValueError(f"--warm-start needs --search tpe: {self.search} learns nothing from other trials")
        check_space(self.space, self.config)

    @property
    def config(self) -> Config:
        """The config that samples change."""
        return self.spec.config

    @property
    def layout(self) -> SweepLayout:
        """Where everything is."""
        return SweepLayout(absolute_uri(self.storage_uri), self.name)

    def describe(self) -> list[str]:
        """The sweep's arithmetic, a line each."""
        train = self.config.train
        keys = ", ".join(self.space.domains)
        workers = self.spec.runtime.train.workers
        lines = [
            f"sweep   {self.num_trials} trials of {workers} workers, {self.search} search over {keys}",
            f"        {train.validate_every_steps} to {train.num_steps} steps by {self.scheduler}; "
            f"{self.mode} {self.metric}",
        ]
        if self.budget_s:
            lines.append(f"        at most {self.budget_s / 60:.0f} minutes")
        return lines

    @property
    def trial_spec(self) -> RunSpec:
        """What samples change: every validation is saved, so that each result has its checkpoint; what one trial read
        from a bucket, the next ones on that node take from its disk."""
        train, runtime = self.config.train, self.spec.runtime
        keep = runtime.train.keep_checkpoints if self.mode == "max" else train.num_steps  # `prune` takes most for best
        config = dataclasses.replace(
            self.config,
            train=dataclasses.replace(
                train, checkpoint_every_steps=train.validate_every_steps, best_metric=self.metric
            ),
        )
        ingest = runtime.data
        if not ingest.cache_dir and any("://" in uri for uri in (*config.data.train, *config.data.val)):
            ingest = dataclasses.replace(ingest, cache_dir=SHARED_CACHE)
        workers = dataclasses.replace(runtime.train, keep_checkpoints=keep)
        return with_absolute_uris(RunSpec(config, dataclasses.replace(runtime, train=workers, data=ingest)))


@dataclasses.dataclass(frozen=True)
class Winner:
    """A sweep's best trial.

    Attributes:
      sample: its values.
      spec: its whole run spec.
    """

    trial: str
    value: float
    step: int
    checkpoint: str
    sample: Sample
    spec: RunSpec


def run_sweep(sweep: Sweep) -> SweepResults:
    """Runs a sweep, or goes on with it.

    Raises:
      ValueError: the folder holds another sweep, the data is missing, or no trial fits the cluster.
      RunError: no trial gave a result.
    """
    spec, layout = sweep.trial_spec, sweep.layout
    describe(spec)
    check_start(spec.config.train.init)
    with local_session(cpus_wanted(spec), state_api=True):
        concurrent = trials_at_once(spec, cluster_limits())
        _claim(sweep)
        tuner = _tuner(sweep, spec, concurrent)
        tuner.fit()
    results = load_results(layout)
    if results is None or not results.ranked():
        told = {record.error for record in results.trials if record.error} if results else set()
        raise RunError(f"no trial gave a result: {'; '.join(sorted(told)) or 'none was validated'}")
    over = sum(results.count(state) for state in ("finished", "stopped", "failed"))
    if over < sweep.num_trials and not (sweep.budget_s and results.elapsed_s >= sweep.budget_s):
        raise RunError(f"Ray Tune ended with {over} of {sweep.num_trials} trials done")
    return results


def winner(sweep: Sweep, results: SweepResults) -> Winner:
    """The best trial by the sweep's metric, and the checkpoint in storage that has it."""
    record = results.ranked()[0]
    best = record.best(sweep.mode)
    assert best is not None
    spec = sweep.trial_spec
    spec = dataclasses.replace(spec, config=sweep.space.apply(spec.config, record.sample))
    return Winner(record.trial, best.value, best.step, best.checkpoint, record.sample, spec)


def trials_at_once(spec: RunSpec, resources: dict[str, float]) -> int:
    """How many trials the cluster runs at the same time.

    Raises:
      ValueError: not even one fits.
    """
    train, read_cpus = spec.runtime.train, spec.runtime.data.cpus_per_read_task
    needs = {"CPU": train.workers * train.cpus_per_worker + read_cpus + TRIAL_CPUS}
    if train.gpus_per_worker:
        needs["GPU"] = float(train.workers * train.gpus_per_worker)
    fits = {name: math.floor(resources.get(name, 0.0) / need + 1e-9) for name, need in needs.items()}
    if min(fits.values()) < 1:
        short = min(fits, key=lambda name: fits[name])
        raise ValueError(
            f"no trial fits: {train.workers} workers x {train.cpus_per_worker:g} CPU and {train.gpus_per_worker} GPU, "
            f"and {read_cpus:g} CPU to read, make {needs[short]:g} {short}; the cluster has "
            f"{resources.get(short, 0.0):g}. Lower --workers-per-trial or train.cpus_per_worker, or add nodes"
        )
    return min(fits.values())


def _claim(sweep: Sweep) -> None:
    """Writes down what a new sweep is; refuses a folder that holds another."""
    told: dict[str, Any] = {
        "config": sweep.trial_spec.config.to_dict(),
        "space": {key: dataclasses.asdict(domain) for key, domain in sweep.space.domains.items()},
        "num_trials": sweep.num_trials,
        "scheduler": sweep.scheduler,
        "search": sweep.search,
        "metric": sweep.metric,
        "mode": sweep.mode,
        "seed": sweep.seed,
    }
    place = open_uri(sweep.layout.marker)
    if place.write_new(json.dumps(told, indent=2).encode()):
        return
    there = json.loads(place.read_bytes())
    wanted = json.loads(json.dumps(told))
    changed = [key for key in wanted if key != "config" and there.get(key) != wanted[key]]
    changed += difference(Config.from_dict(there["config"]).to_dict(), told["config"])
    if changed:
        raise ValueError(
            f"{sweep.layout.root} holds another sweep; give another --name, or the old values. Changed:\n  "
            + "\n  ".join(changed)
        )


def _tuner(sweep: Sweep, spec: RunSpec, concurrent: int) -> tune.Tuner:
    layout = sweep.layout
    settings = TrialSettings(spec.to_dict(), sweep.space, layout.trials, sweep.stall_s)
    trainable = tune.with_resources(tune.with_parameters(run_trial, settings=settings), {"CPU": TRIAL_CPUS})
    own = open_uri(layout.tune)
    files = own.filesystem_of_whole_files()
    param_space = _domains(sweep) if sweep.search == "random" else {}  # Optuna is given its own
    if saved_by_tune(own, sweep.search):
        return tune.Tuner.restore(
            own.path,
            trainable,
            storage_filesystem=files,
            resume_unfinished=True,
            param_space=param_space,
        )
    stop = Budget(layout, sweep.budget_s) if sweep.budget_s else None
    watch = SweepCallback(
        layout, sweep.space, sweep.metric, sweep.mode, sweep.num_trials, spec.config.train.num_steps, sweep.budget_s
    )
    return tune.Tuner(
        trainable,
        param_space=param_space,
        tune_config=tune.TuneConfig(
            metric=sweep.metric,
            mode=sweep.mode,
            num_samples=sweep.num_trials,
            max_concurrent_trials=concurrent,
            scheduler=scheduler(sweep),
            search_alg=searcher(sweep, concurrent),
            trial_dirname_creator=_tune_folder,
        ),
        run_config=tune.RunConfig(
            name=TUNE_NAME,
            storage_path=open_uri(layout.root).path,
            storage_filesystem=files,
            failure_config=tune.FailureConfig(max_failures=sweep.retries),
            # Pointers, of some hundred bytes. Tune deletes one before it has saved that there is a newer: if the driver
            # dies between, the trial could never start again.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=None),
            callbacks=[watch],
            stop=stop,
            verbose=0,
        ),
    )


def saved_by_tune(place: Location, search: str) -> bool:
    """Whether Tune's folder holds all that it goes on from: a driver may die while they are written first, and Tune
    would end such a sweep at once as if nothing were left to do."""
    wanted = ["tuner.pkl", "experiment_state-"]
    wanted += ["basic-variant-state-"] if search == "random" else ["search_gen_state-", "searcher-state-"]
    names = [name for name, _ in place.names()]
    return all(any(name.startswith(start) for name in names) for start in wanted)


def _tune_folder(trial: Any) -> str:
    """Where Tune keeps a trial's pointers and TensorBoard's HParams; its default name holds all values."""
    return str(trial.trial_id)


def _domains(sweep: Sweep) -> dict[str, Any]:
    """The space in Ray Tune's words."""
    made = {
        "uniform": lambda values: tune.uniform(*values),
        "loguniform": lambda values: tune.loguniform(*values),
        "randint": lambda values: tune.randint(values[0], values[1] + 1),
        "choice": lambda values: tune.choice(list(values)),
    }
    return {key: made[domain.kind](domain.values) for key, domain in sweep.space.domains.items()}


def _mutations(sweep: Sweep) -> dict[str, Any]:
    """The space for population based training, which goes to a neighbour in a list and multiplies all else."""
    choices = {key: list(d.values) for key, d in sweep.space.domains.items() if d.kind == "choice"}
    return _domains(sweep) | choices


def scheduler(sweep: Sweep) -> Any:
    """Ray Tune's scheduler."""
    from ray.tune import schedulers

    steps, shortest = sweep.config.train.num_steps, sweep.config.train.validate_every_steps
    if sweep.scheduler in ("asha", "hyperband"):
        # Tune's HyperBandScheduler wants all trials added at once; as they come, it stops none.
        rungs = 1 + math.floor(math.log(steps / shortest, REDUCTION) + 1e-9)
        return ResumableASHA(
            sweep.layout,
            time_attr="step",
            max_t=steps,
            grace_period=shortest,
            reduction_factor=REDUCTION,
            brackets=rungs if sweep.scheduler == "hyperband" else 1,
        )
    if sweep.scheduler == "median":
        return ResumableMedian(sweep.layout, time_attr="step", grace_period=shortest, min_samples_required=2)
    if sweep.scheduler == "pbt":
        return PBT(
            steps,
            perturbation_interval=shortest,
            hyperparam_mutations=_mutations(sweep),
            custom_explore_fn=sweep.space.within,  # Tune's own steps, x 0.8 or x 1.2, leave the range
            synch=True,  # trials wait for each other at each interval: also those that there was no room for at once
        )
    return schedulers.FIFOScheduler()


def searcher(sweep: Sweep, concurrent: int) -> Any:
    """Ray Tune's search algorithm; it knows what the earlier sweep found.

    Raises:
      ValueError: the earlier sweep cannot be used.
    """
    if sweep.search == "random":
        from ray.tune.search.basic_variant import BasicVariantGenerator

        return BasicVariantGenerator(random_state=sweep.seed, max_concurrent=concurrent)
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # of QMC, which we pin
    samplers = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=sweep.seed, multivariate=True, constant_liar=True),
        "qmc": lambda: optuna.samplers.QMCSampler(seed=sweep.seed, warn_independent_sampling=False),
    }
    points, rewards = _earlier(sweep)
    return OptunaSearch(
        space=distributions(sweep.space),
        metric=sweep.metric,
        mode=sweep.mode,
        sampler=samplers[sweep.search](),
        points_to_evaluate=points or None,
        evaluated_rewards=rewards or None,
    )


def distributions(space: SearchSpace) -> dict[str, Any]:
    """The space in Optuna's words."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for key, domain in space.domains.items():
        if domain.kind == "choice":
            found[key] = CategoricalDistribution(list(domain.values))
        elif domain.kind == "randint":
            low, high = domain.bounds
            found[key] = IntDistribution(int(low), int(high))
        else:
            found[key] = FloatDistribution(*domain.bounds, log=domain.kind == "loguniform")
    return found


def _earlier(sweep: Sweep) -> tuple[list[Sample], list[float]]:
    """Samples and results of the earlier sweep, as far as they lie in this one's space."""
    if not sweep.warm_start:
        return [], []
    storage, _, name = absolute_uri(sweep.warm_start).rstrip("/").rpartition("/")
    results = load_results(SweepLayout(storage, name))
    if results is None or not results.ranked():
        raise ValueError(f"--warm-start is {sweep.warm_start!r}: there is no sweep with results")
    if results.metric != sweep.metric:
        raise ValueError(f"--warm-start is {sweep.warm_start!r}: it measured {results.metric}, not {sweep.metric}")
    usable = [(record, sample) for record in results.ranked() if (sample := _within(sweep, record))]
    if not usable:
        raise ValueError(f"--warm-start is {sweep.warm_start!r}: none of its trials lies in this space")
    values = [point.value for record, _ in usable if (point := record.best(sweep.mode))]
    return [sample for _, sample in usable], values


def _within(sweep: Sweep, record: TrialRecord) -> Sample | None:
    sample: dict[str, Value] = {}
    for key, domain in sweep.space.domains.items():
        value = record.sample.get(key)
        if value is None:
            return None
        if domain.kind == "choice":
            inside = value in domain.values
        else:
            low, high = domain.bounds
            inside = low <= float(value) <= high
        if not inside:
            return None
        sample[key] = value
    return sample
