"""`run_sweep`: a hyperparameter search with Ray Tune over `train_run`.

Each trial is a distributed run in its own folder below the sweep's (`cluster/tune/trial.py`). Tune writes its own state
beside them after every report; calling `run_sweep` again resumes from it, however the last call ended. The number of
concurrent trials follows from what a trial needs and what the cluster has: if too many started at once, each could hold
some of its CPUs and wait forever for the rest.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, get_args

from ray import tune

from cluster.config import RunSpec
from cluster.data.ingest import validation_metrics
from cluster.errors import RunError
from cluster.session import cluster_limits, local_session
from cluster.storage.lease import exclusive
from cluster.storage.location import Location, absolute_uri, open_uri
from cluster.storage.run_layout import TUNE_NAME, SweepLayout
from cluster.train.launch import check_init, describe, local_cluster_cpus, with_absolute_uris
from cluster.tune.callback import SweepCallback, TimeBudget
from cluster.tune.options import DEFAULT_MODE, DEFAULT_SCHEDULER, DEFAULT_SEARCH, Mode, SchedulerName, SearchName
from cluster.tune.results import SweepResults, load_results
from cluster.tune.search import make_scheduler, make_searcher, tune_domains
from cluster.tune.search_space import Sample, SearchSpace, check_space
from cluster.tune.trial import TrialSettings, run_trial
from textscanner.config import BEST_METRIC, Config, require
from textscanner.config_parsing import difference, json_object
from textscanner.errors import UserError

# CPUs of the process that drives a trial. It waits nearly all the time: its workers have CPUs of their own.
TRIAL_CPUS = 0.01
SHARED_CACHE_DIR = "~/.cache/textscanner"  # on every node, at most data.cache_gib
# Sections whose keys PBT may vary: it changes running trials, so nothing that shapes the network.
MUTABLE_SECTIONS = ("optimizer", "losses", "data")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The settings of a sweep.

    Attributes:
      spec: what trials start from; `train.num_steps` is the longest trial, `train.validate_every_steps` the shortest.
      space: the keys that are varied.
      storage_uri: folder or bucket of all sweeps and runs.
      name: the sweep's folder in it.
      num_trials: number of samples.
      scheduler: early stopping. `asha` stops the worst two thirds after validate_every_steps x 3^k steps; `hyperband`
        lets some trials skip the first of these stops; `median` stops trials below the median of the others; `pbt`
        restarts bad trials from the checkpoints of good ones; `fifo` stops none.
      search: `random`, Optuna's `tpe` (learns from finished trials) or `qmc` (quasi-random, evenly spread).
      metric: validation metric that trials are compared by.
      mode: whether the best trial has the largest or the smallest metric.
      budget_s: time limit of the whole sweep in seconds, restarts included; None for no limit.
      seed: of the samples.
      retries: number of times a failed trial is retried.
      stall_s: a trial that takes no step for this many seconds has failed; the wait for nodes and the progress of a
        validation do not count.
      warm_start: URI of an earlier sweep whose trials `tpe` learns from first; empty for none.

    Raises:
      UserError: a value breaks a rule, or the space does not fit the config.
    """

    spec: RunSpec
    space: SearchSpace
    storage_uri: str
    name: str
    num_trials: int
    scheduler: SchedulerName = DEFAULT_SCHEDULER
    search: SearchName = DEFAULT_SEARCH
    metric: str = BEST_METRIC
    mode: Mode = DEFAULT_MODE
    budget_s: float | None = None
    seed: int = 0
    retries: int = 1
    stall_s: float = 600.0
    warm_start: str = ""

    def __post_init__(self) -> None:
        require(self.num_trials >= 1, "num_trials", self.num_trials, "must be at least 1")
        for field, choices in (("scheduler", SchedulerName), ("search", SearchName), ("mode", Mode)):
            value, names = getattr(self, field), get_args(choices)
            require(value in names, field, value, f"must be one of {', '.join(names)}")
        require(self.budget_s is None or self.budget_s > 0, "budget_s", self.budget_s, "must be positive")
        require(self.retries >= 0, "retries", self.retries, "must not be negative")
        require(self.stall_s > 0, "stall_s", self.stall_s, "must be positive")
        train = self.config.train
        require(
            train.validate_every_steps <= train.num_steps,
            "train.validate_every_steps",
            train.validate_every_steps,
            f"must not exceed train.num_steps ({train.num_steps})",
        )
        self._check_metric()
        if self.scheduler == "pbt":
            self._check_pbt()
        if self.warm_start and self.search != "tpe":
            raise UserError(
                f"warm_start is {self.warm_start!r}: it needs search 'tpe'; {self.search!r} does not learn from trials"
            )
        check_space(self.space, self.config)

    def _check_metric(self) -> None:
        reported = validation_metrics(self.config.data.val)
        if self.metric not in reported:
            reason = f"must be one of {', '.join(reported)}" if reported else "data.val is empty: nothing is validated"
            raise UserError(f"metric is {self.metric!r}: no trial would report it; {reason}")

    def _check_pbt(self) -> None:
        if self.search != "random":
            raise UserError(f"search is {self.search!r}: scheduler 'pbt' changes values itself and needs 'random'")
        fixed = [key for key in self.space.domains if key.partition(".")[0] not in MUTABLE_SECTIONS]
        if fixed:
            raise UserError(
                f"scheduler is 'pbt': it changes running trials and cannot vary {', '.join(fixed)}; "
                f"vary keys of {', '.join(MUTABLE_SECTIONS)}, or use 'asha'"
            )

    @property
    def config(self) -> Config:
        """The config that samples change."""
        return self.spec.config

    @property
    def layout(self) -> SweepLayout:
        """Paths of the sweep."""
        return SweepLayout(absolute_uri(self.storage_uri), self.name)

    def describe(self) -> list[str]:
        """Describes trials, steps and budget, one line each."""
        train, workers = self.config.train, self.spec.runtime.train.workers
        keys = ", ".join(self.space.domains)
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
        """The run spec of the trials, before a sample is applied.

        Every validation saves a checkpoint, so that each result has the weights that it was measured with. Trials of a
        node share a disk cache of what they read from a bucket.
        """
        train, runtime = self.config.train, self.spec.runtime
        # `prune` takes the largest metric for the best; with "min" all checkpoints are kept.
        keep = runtime.train.keep_checkpoints if self.mode == "max" else train.num_steps
        train = dataclasses.replace(train, checkpoint_every_steps=train.validate_every_steps, best_metric=self.metric)
        config = dataclasses.replace(self.config, train=train)
        ingest = runtime.data
        if not ingest.cache_dir and any("://" in uri for uri in (*config.data.train, *config.data.val)):
            ingest = dataclasses.replace(ingest, cache_dir=SHARED_CACHE_DIR)
        workers = dataclasses.replace(runtime.train, keep_checkpoints=keep)
        return with_absolute_uris(RunSpec(config, dataclasses.replace(runtime, train=workers, data=ingest)))


@dataclasses.dataclass(frozen=True)
class BestTrial:
    """The best trial of a sweep.

    Attributes:
      trial: its id.
      value: its best metric.
      step: the step at which it was measured.
      checkpoint: URI of the checkpoint of that step.
      sample: its sampled values.
      spec: its complete run spec.
    """

    trial: str
    value: float
    step: int
    checkpoint: str
    sample: Sample
    spec: RunSpec


def run_sweep(sweep: Sweep) -> SweepResults:
    """Runs a sweep, or resumes it; returns the results of all trials.

    Raises:
      UserError: another process runs this sweep, the folder holds another sweep, the data is missing, or no trial fits
        the cluster.
      RunError: no trial reported a result, Ray Tune ended before all trials were done, or another process took over.

    Example:
      >>> from cluster.config import RunSpec, override
      >>> from cluster.tune.search_space import SPACES
      >>> from textscanner.presets import preset
      >>> data = ['data.train=["data/words"]', 'data.val=["data/held_out"]']
      >>> sweep = Sweep(override(RunSpec(preset("small")), data), SPACES["finetune"], "runs", "sweep", num_trials=8)
      >>> results = run_sweep(sweep)  # doctest: +SKIP
      >>> best_trial(sweep, results).checkpoint  # doctest: +SKIP
      '/home/me/runs/sweep/trials/4f1c2_00003/step_00010000'
    """
    spec, layout = sweep.trial_spec, sweep.layout
    describe(spec)
    check_init(spec.config.train.init)
    # The State API: only with it does Ray Train free the resources of a trial that was stopped.
    with exclusive(layout.root), local_session(local_cluster_cpus(spec), state_api=True):
        max_concurrent = max_concurrent_trials(spec, cluster_limits())
        _claim_folder(sweep)
        tuner = _tuner(sweep, spec, max_concurrent)
        tuner.fit()
    results = load_results(layout)
    if results is None or not results.ranked():
        errors = {record.error for record in results.trials if record.error} if results else set()
        raise RunError(f"no trial reported a result: {'; '.join(sorted(errors)) or 'none was validated'}")
    num_done = sum(results.count(state) for state in ("finished", "stopped", "failed"))
    if num_done < sweep.num_trials and not (sweep.budget_s and results.elapsed_s >= sweep.budget_s):
        raise RunError(f"Ray Tune ended with {num_done} of {sweep.num_trials} trials done")
    return results


def best_trial(sweep: Sweep, results: SweepResults) -> BestTrial:
    """The best trial by the sweep's metric, with the checkpoint that reached it."""
    record = results.ranked()[0]
    best = record.best(sweep.mode)
    assert best is not None, "ranked trials have a validation"
    spec = sweep.trial_spec
    spec = dataclasses.replace(spec, config=sweep.space.apply(spec.config, record.sample))
    return BestTrial(
        trial=record.trial,
        value=best.value,
        step=best.step,
        checkpoint=best.checkpoint,
        sample=record.sample,
        spec=spec,
    )


def max_concurrent_trials(spec: RunSpec, resources: dict[str, float]) -> int:
    """How many trials fit the cluster at the same time.

    Args:
      resources: the cluster's, `CPU` and `GPU`.

    Raises:
      UserError: not even one fits.
    """
    train, read_cpus = spec.runtime.train, spec.runtime.data.cpus_per_read_task
    required = {"CPU": train.workers * train.cpus_per_worker + read_cpus + TRIAL_CPUS}
    if train.gpus_per_worker:
        required["GPU"] = float(train.workers * train.gpus_per_worker)
    # The small term: 0.3 / 0.1 is just below 3 in floating point.
    fitting = {name: math.floor(resources.get(name, 0.0) / need + 1e-9) for name, need in required.items()}
    if min(fitting.values()) < 1:
        scarce = min(fitting, key=lambda name: fitting[name])
        raise UserError(
            f"no trial fits the cluster: {train.workers} workers x {train.cpus_per_worker:g} CPU and "
            f"{train.gpus_per_worker} GPU, and {read_cpus:g} CPU to read, need {required[scarce]:g} {scarce}; the "
            f"cluster has {resources.get(scarce, 0.0):g}. Lower train.workers or train.cpus_per_worker, or add nodes"
        )
    return min(fitting.values())


def _claim_folder(sweep: Sweep) -> None:
    """Writes the settings of a new sweep into its folder.

    Raises:
      UserError: the folder holds another sweep, or its settings cannot be read.
    """
    settings: dict[str, Any] = {
        "config": sweep.trial_spec.config.to_dict(),
        "space": {key: dataclasses.asdict(domain) for key, domain in sweep.space.domains.items()},
        "num_trials": sweep.num_trials,
        "scheduler": sweep.scheduler,
        "search": sweep.search,
        "metric": sweep.metric,
        "mode": sweep.mode,
        "seed": sweep.seed,
    }
    location = open_uri(sweep.layout.marker)
    if location.write_new(json.dumps(settings, indent=2).encode()):
        return
    marker = sweep.layout.marker
    remedy = "choose another name, or delete the sweep's folder to start again"
    existing = json_object(location.read_bytes(), marker, remedy)
    if not isinstance(existing.get("config"), dict):
        raise UserError(f"{marker} is damaged: it has no config; {remedy}")
    requested = json.loads(json.dumps(settings))  # tuples become lists, as in the file
    changed = [key for key in requested if key != "config" and existing.get(key) != requested[key]]
    changed += difference(Config.from_dict(existing["config"], marker).to_dict(), settings["config"])
    if changed:
        raise UserError(
            f"{sweep.layout.root} holds another sweep: choose another name, or restore the old values. Changed:"
            "\n  " + "\n  ".join(changed)
        )


def _tuner(sweep: Sweep, spec: RunSpec, max_concurrent: int) -> tune.Tuner:
    """Tune's driver of the sweep, restored from its saved state if there is any."""
    layout = sweep.layout
    settings = TrialSettings(spec.to_dict(), sweep.space, layout.trials, sweep.stall_s)
    trainable = tune.with_resources(tune.with_parameters(run_trial, settings=settings), {"CPU": TRIAL_CPUS})
    state = open_uri(layout.tune)
    filesystem = state.atomic_filesystem()
    param_space = tune_domains(sweep.space) if sweep.search == "random" else {}  # Optuna's searcher has its own
    if has_tune_state(state, sweep.search):
        return tune.Tuner.restore(
            state.path,
            trainable,
            storage_filesystem=filesystem,
            resume_unfinished=True,
            param_space=param_space,
        )
    callback = SweepCallback(
        layout=layout,
        space=sweep.space,
        metric=sweep.metric,
        mode=sweep.mode,
        num_trials=sweep.num_trials,
        num_steps=spec.config.train.num_steps,
        budget_s=sweep.budget_s,
    )
    return tune.Tuner(
        trainable,
        param_space=param_space,
        tune_config=tune.TuneConfig(
            metric=sweep.metric,
            mode=sweep.mode,
            num_samples=sweep.num_trials,
            max_concurrent_trials=max_concurrent,
            scheduler=make_scheduler(sweep),
            search_alg=make_searcher(sweep, max_concurrent),
            trial_dirname_creator=_trial_dirname,
        ),
        run_config=tune.RunConfig(
            name=TUNE_NAME,
            storage_path=open_uri(layout.root).path,
            storage_filesystem=filesystem,
            failure_config=tune.FailureConfig(max_failures=sweep.retries),
            # All of Tune's checkpoints are kept: they are pointers of a few hundred bytes. Tune would delete one before
            # it saves that there is a newer one; a driver killed in between could never start the trial again.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=None),
            callbacks=[callback],
            stop=TimeBudget(layout, sweep.budget_s) if sweep.budget_s else None,
            verbose=0,
        ),
    )


def has_tune_state(folder: Location, search: str) -> bool:
    """Whether Tune's folder holds everything that Tune needs to resume.

    A driver may die while Tune saves for the first time. Restored from such a folder, Tune would end the sweep at once
    as if all trials were done.
    """
    prefixes = ["tuner.pkl", "experiment_state-"]
    prefixes += ["basic-variant-state-"] if search == "random" else ["search_gen_state-", "searcher-state-"]
    names = [name for name, _ in folder.names()]
    return all(any(name.startswith(prefix) for name in names) for prefix in prefixes)


def _trial_dirname(trial: Any) -> str:
    """Folder of a trial's pointers and TensorBoard's HParams; Tune's default name would contain all sampled values."""
    return str(trial.trial_id)
