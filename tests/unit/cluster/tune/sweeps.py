"""A sweep and its results, for the tests of this folder."""

from cluster.config import RunSpec, override
from cluster.tune.results import Point, SweepResults, TrialRecord
from cluster.tune.search_space import Domain, SearchSpace
from cluster.tune.sweep import Sweep
from textscanner.config import BEST_METRIC
from textscanner.presets import preset

SPACE = SearchSpace(
    {"optimizer.learning_rate": Domain("loguniform", (1e-4, 1e-1)), "losses.order_weight": Domain("uniform", (0, 9))}
)
SPEC = override(RunSpec(preset("tiny")), ['data.train=["a"]', 'data.val=["b"]'])


def make_sweep(tmp_path, *assignments, **changed) -> Sweep:
    """A sweep of four trials over SPACE; `assignments` change its spec, keywords its other fields."""
    fields = {"spec": override(SPEC, assignments), "space": SPACE, "storage_uri": str(tmp_path), "name": "s"}
    return Sweep(**(fields | {"num_trials": 4} | changed))


def make_results() -> SweepResults:
    """Trial 2 is the best; the metric depends on the learning rate and not on the order weight; trial 8 failed."""
    results = SweepResults(BEST_METRIC, "max", elapsed_s=90.0)
    for i, rate in enumerate([1e-4, 1e-3, 1e-2, 3e-4, 5e-3, 2e-4, 7e-3, 1.5e-4]):
        record = TrialRecord(f"t{i}", {"optimizer.learning_rate": rate, "losses.order_weight": (i * 3) % 8})
        for step in (20, 40):
            record.add(Point(step, rate * step, 2.0 * step, f"runs/t{i}/step_{step:08d}"))
        record.state = "finished" if i == 2 else "stopped"
        results.trials.append(record)
    results.trials.append(TrialRecord("t8", {"optimizer.learning_rate": 1.0}, "failed", error="not finite", failures=2))
    return results
