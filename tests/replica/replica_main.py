"""One worker of a replica test: `python -m tests.replica.replica_main RANK WORLD OUT`, TF_CONFIG in the environment.

Trains `tiny` for 20 steps on its share of fixed batches, one of which is poisoned, and writes metrics and all weights.
"""

import sys

import numpy as np

STEPS = 20
POISONED_STEP, POISONED_ROW = 7, 12  # a value of one row of the global batch, of one worker, is not finite


def main(rank: int, world: int, out: str) -> None:
    """Trains and writes `out`, an .npz."""
    import cluster  # noqa: F401 (quiet)
    from cluster.config import RunSpec, override
    from cluster.train.strategy import make_strategy, sum_over_workers
    from textscanner.presets import preset

    spec = override(
        RunSpec(preset("tiny")),
        [
            f"train.workers={world}",
            "train.global_batch_size=16",
            "optimizer.ema_momentum=0.9",
            "optimizer.clip_norm=1.0",
            "train.threads_per_worker=1",
            # Adam divides by the gradient's size: at a high rate, rounding is blown up within a few steps.
            "optimizer.learning_rate=0.0002",
        ],
    )
    config = spec.config
    strategy = make_strategy(spec.runtime.train)
    import tensorflow as tf

    from tests.factories import batch_of, rendered_records
    from textscanner.training.step import StepMetrics, create_state, make_train_step

    records = rendered_records(48)
    state = create_state(config, strategy)
    step = make_train_step(state)
    share = spec.replica_batch_size
    batches = [
        batch_of([records[(16 * i + j) % 48] for j in range(rank * share, (rank + 1) * share)], config)
        for i in range(STEPS)
    ]
    if POISONED_ROW // share == rank:
        batches[POISONED_STEP]["has_quads"][POISONED_ROW % share] = np.nan
    stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    # Endless, as in training: at the end of a finite one the workers would ask each other whether there is more.
    dataset = strategy.distribute_datasets_from_function(lambda _: tf.data.Dataset.from_tensor_slices(stacked).repeat())
    iterator = iter(dataset)
    metrics = [step(next(iterator)) for _ in range(STEPS)]
    state.sync_ema()
    summed = sum_over_workers(strategy, tf.constant([1.0, float(rank)], tf.float64)).numpy()
    arrays = {
        f"metrics/{name}": np.array(values)
        for name, values in StepMetrics(*zip(*metrics, strict=True))._asdict().items()
    }
    arrays |= {f"live/{v.path}": v.numpy() for v in state.model.weights}
    arrays |= {f"ema/{v.path}": v.numpy() for v in state.ema_model.weights}
    np.savez(out, summed=summed, **arrays)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
