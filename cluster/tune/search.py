"""Ray Tune's scheduler and search algorithm of a sweep, and its space in the terms of Tune and Optuna."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ray import tune

from cluster.storage.location import absolute_uri
from cluster.storage.run_layout import SweepLayout
from cluster.tune.results import load_results
from cluster.tune.schedulers import PBT, ResumableASHA, ResumableMedian
from cluster.tune.search_space import Sample, SearchSpace
from textscanner.errors import UserError

if TYPE_CHECKING:  # sweep.py imports this module
    from cluster.tune.sweep import Sweep

REDUCTION_FACTOR = 3  # ASHA and hyperband: the best third of the trials continues


def tune_domains(space: SearchSpace) -> dict[str, Any]:
    """The space as Ray Tune's domains."""
    makers = {
        "uniform": lambda values: tune.uniform(*values),
        "loguniform": lambda values: tune.loguniform(*values),
        "randint": lambda values: tune.randint(values[0], values[1] + 1),
        "choice": lambda values: tune.choice(list(values)),
    }
    return {key: makers[domain.kind](domain.values) for key, domain in space.domains.items()}


def _pbt_mutations(space: SearchSpace) -> dict[str, Any]:
    """The space for PBT, which moves to a neighbour in a list and multiplies everything else."""
    choices = {key: list(d.values) for key, d in space.domains.items() if d.kind == "choice"}
    return tune_domains(space) | choices


def make_scheduler(sweep: Sweep) -> Any:
    """Ray Tune's scheduler of the sweep."""
    from ray.tune import schedulers

    max_steps, min_steps = sweep.config.train.num_steps, sweep.config.train.validate_every_steps
    if sweep.scheduler in ("asha", "hyperband"):
        # Hyperband as ASHA with several brackets: Tune's HyperBandScheduler stops trials only if all are added at once.
        num_brackets = 1 + math.floor(math.log(max_steps / min_steps, REDUCTION_FACTOR) + 1e-9)
        return ResumableASHA(
            sweep.layout,
            time_attr="step",
            max_t=max_steps,
            grace_period=min_steps,
            reduction_factor=REDUCTION_FACTOR,
            brackets=num_brackets if sweep.scheduler == "hyperband" else 1,
        )
    if sweep.scheduler == "median":
        return ResumableMedian(sweep.layout, time_attr="step", grace_period=min_steps, min_samples_required=2)
    if sweep.scheduler == "pbt":
        return PBT(
            max_steps,
            perturbation_interval=min_steps,
            hyperparam_mutations=_pbt_mutations(sweep.space),
            custom_explore_fn=sweep.space.clip,  # Tune multiplies by 0.8 or 1.2, which may leave the range
            synch=True,  # trials wait for each other at each interval, also those that have not had room to start yet
        )
    return schedulers.FIFOScheduler()


def make_searcher(sweep: Sweep, max_concurrent: int) -> Any:
    """Ray Tune's search algorithm of the sweep; `tpe` is given the trials of `warm_start`.

    Raises:
      UserError: the earlier sweep cannot be used.
    """
    if sweep.search == "random":
        from ray.tune.search.basic_variant import BasicVariantGenerator

        return BasicVariantGenerator(random_state=sweep.seed, max_concurrent=max_concurrent)
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # QMC; our Optuna is pinned
    samplers: dict[str, Callable[[], Any]] = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=sweep.seed, multivariate=True, constant_liar=True),
        "qmc": lambda: optuna.samplers.QMCSampler(seed=sweep.seed, warn_independent_sampling=False),
    }
    samples, values = _warm_start_trials(sweep)
    return OptunaSearch(
        space=optuna_distributions(sweep.space),
        metric=sweep.metric,
        mode=sweep.mode,
        sampler=samplers[sweep.search](),
        points_to_evaluate=samples or None,
        evaluated_rewards=values or None,
    )


def optuna_distributions(space: SearchSpace) -> dict[str, Any]:
    """The space as Optuna's distributions."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    distributions: dict[str, Any] = {}
    for key, domain in space.domains.items():
        if domain.kind == "choice":
            distributions[key] = CategoricalDistribution(list(domain.values))
        elif domain.kind == "randint":
            low, high = domain.bounds
            distributions[key] = IntDistribution(int(low), int(high))
        else:
            distributions[key] = FloatDistribution(*domain.bounds, log=domain.kind == "loguniform")
    return distributions


def _warm_start_trials(sweep: Sweep) -> tuple[list[Sample], list[float]]:
    """Samples and best metrics of the trials of the earlier sweep that lie in this sweep's space."""
    if not sweep.warm_start:
        return [], []
    storage_uri, _, name = absolute_uri(sweep.warm_start).rstrip("/").rpartition("/")
    results = load_results(SweepLayout(storage_uri, name))
    if results is None or not results.ranked():
        raise UserError(f"warm_start is {sweep.warm_start!r}: there is no sweep with results there")
    if results.metric != sweep.metric:
        raise UserError(f"warm_start is {sweep.warm_start!r}: it measured {results.metric}, not {sweep.metric}")
    usable = [
        (sample, best.value)
        for record in results.ranked()
        if (sample := sweep.space.restrict(record.sample)) and (best := record.best(sweep.mode))
    ]
    if not usable:
        raise UserError(f"warm_start is {sweep.warm_start!r}: none of its trials lies in this sweep's space")
    return [sample for sample, _ in usable], [value for _, value in usable]
