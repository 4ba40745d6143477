"""The all-reduce that a preflight times; apart, because importing it loads TensorFlow."""

from __future__ import annotations

import time

import tensorflow as tf

from cluster.config import WorkerConfig
from cluster.train.strategy import make_strategy


def time_reduction(train: WorkerConfig, num_bytes: int, repeats: int) -> float:
    """Sums a float vector of ones over all replicas; seconds of the fastest repetition. A collective.

    Raises:
      RuntimeError: the sum is wrong, or the devices are not those of the config.
    """
    strategy = make_strategy(train)

    def replica_sum() -> tf.Tensor:
        ones = tf.ones([num_bytes // 4])
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, ones)

    @tf.function
    def summed() -> tf.Tensor:
        # The least and the largest element leave the graph: enough to check, and nothing to copy.
        total = strategy.experimental_local_results(strategy.run(replica_sum))[0]
        return tf.stack([tf.reduce_min(total), tf.reduce_max(total)])

    wanted, seconds = float(strategy.num_replicas_in_sync), []
    for _ in range(repeats + 1):  # the first also builds the graph and connects
        begin = time.perf_counter()
        least, largest = summed().numpy()
        seconds.append(time.perf_counter() - begin)
        if not least == largest == wanted:
            raise RuntimeError(f"ones summed over {wanted:g} replicas gave {least:g} to {largest:g}")
    return min(seconds[1:])
