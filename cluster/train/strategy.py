"""Creates the `tf.distribute` strategy from TF_CONFIG; sets threads and GPU memory before device initialization."""

from __future__ import annotations

import tensorflow as tf

from cluster.config import WorkerConfig


def make_strategy(config: WorkerConfig) -> tf.distribute.Strategy:
    """Returns MultiWorkerMirroredStrategy over the TF_CONFIG of Ray Train, or the default strategy for one replica.

    Must be called before any other TensorFlow operation in the process.

    Raises:
      RuntimeError: the worker sees fewer GPUs than `train.gpus_per_worker`, or TF_CONFIG has another number of workers.
    """
    if config.threads_per_worker:
        tf.config.threading.set_intra_op_parallelism_threads(config.threads_per_worker)
        # At least two: a collective that waits for other workers must not hold up all other operations.
        tf.config.threading.set_inter_op_parallelism_threads(max(2, config.threads_per_worker))
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if len(gpus) < config.gpus_per_worker:
        raise RuntimeError(
            f"train.gpus_per_worker is {config.gpus_per_worker}, but TensorFlow sees {len(gpus)} GPUs on this node: "
            "check the driver and that tensorflow[and-cuda] is installed on every node"
        )
    num_replicas = config.workers * config.replicas_per_worker
    if num_replicas == 1:
        return tf.distribute.get_strategy()
    implementations = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=implementations.NCCL if config.gpus_per_worker else implementations.RING
    )
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    if strategy.num_replicas_in_sync != num_replicas:
        raise RuntimeError(
            f"the strategy has {strategy.num_replicas_in_sync} replicas, the config asks for {num_replicas} "
            f"({config.workers} workers x {config.replicas_per_worker} devices): TF_CONFIG belongs to another run"
        )
    return strategy


def sum_over_workers(strategy: tf.distribute.Strategy, values: tf.Tensor) -> tf.Tensor:
    """Sums a vector over all workers. A collective: every worker must call it.

    Args:
      values: float [n], this worker's.

    Returns:
      float [n], the same on every worker.
    """
    if strategy.num_replicas_in_sync == 1:
        return values
    num_workers = strategy.cluster_resolver.cluster_spec().num_tasks("worker")
    local_replicas = strategy.num_replicas_in_sync // num_workers

    def replica_sum(share: tf.Tensor) -> tf.Tensor:
        # The identity puts the vector on the replica's device; an argument has none, and the collective needs one.
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(share))

    @tf.function  # type: ignore[untyped-decorator]
    def total(share: tf.Tensor) -> tf.Tensor:
        return strategy.experimental_local_results(strategy.run(replica_sum, (share,)))[0]

    # The all-reduce counts each replica, so each of a worker's replicas contributes an equal share.
    return total(values / local_replicas)
