"""The all-reduce that a preflight times; in a module of its own, because importing it loads TensorFlow."""

from __future__ import annotations

import time

import tensorflow as tf

from cluster.config import WorkerConfig
from cluster.train.strategy import make_strategy


def time_allreduce(train: WorkerConfig, num_bytes: int, repeats: int) -> float:
    """Sums a float32 vector of ones over all replicas. A collective: every worker must call it.

    Args:
      num_bytes: size of the vector.
      repeats: timed repetitions, after one that is not timed.

    Returns:
      seconds of the fastest repetition.

    Raises:
      RuntimeError: the sum is wrong, or the devices are not those of the config.
    """
    strategy = make_strategy(train)

    def replica_sum() -> tf.Tensor:
        ones = tf.ones([num_bytes // 4])
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, ones)

    @tf.function  # type: ignore[untyped-decorator]
    def smallest_and_largest() -> tf.Tensor:  # [2]: enough to verify the sum, without copying all of it to the host
        total = strategy.experimental_local_results(strategy.run(replica_sum))[0]
        return tf.stack([tf.reduce_min(total), tf.reduce_max(total)])

    expected, seconds = float(strategy.num_replicas_in_sync), []
    for _ in range(repeats + 1):  # the first also builds the graph and opens the connections
        begin_s = time.perf_counter()
        smallest, largest = smallest_and_largest().numpy()
        seconds.append(time.perf_counter() - begin_s)
        if not smallest == largest == expected:
            raise RuntimeError(f"ones summed over {expected:g} replicas gave {smallest:g} to {largest:g}")
    return min(seconds[1:])
