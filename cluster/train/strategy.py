"""TF_CONFIG -> a `tf.distribute` strategy, with threads and GPU memory set before TensorFlow starts its devices."""

from __future__ import annotations

import tensorflow as tf

from cluster.config import WorkerConfig


def make_strategy(config: WorkerConfig) -> tf.distribute.Strategy:
    """MultiWorkerMirroredStrategy over the TF_CONFIG that Ray Train wrote; the default strategy for a single device.

    Must be called before any other TensorFlow operation in the process.

    Raises:
      RuntimeError: the worker does not see the GPUs that the config asks for.
    """
    if config.threads_per_worker:
        tf.config.threading.set_intra_op_parallelism_threads(config.threads_per_worker)
        tf.config.threading.set_inter_op_parallelism_threads(max(2, config.threads_per_worker))
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if len(gpus) < config.gpus_per_worker:
        raise RuntimeError(
            f"train.gpus_per_worker is {config.gpus_per_worker}, but TensorFlow sees {len(gpus)} GPUs here: "
            "check the driver and that tensorflow[and-cuda] is installed on every node"
        )
    num_replicas = config.workers * config.replicas_per_worker
    if num_replicas == 1:
        return tf.distribute.get_strategy()
    fabric = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=fabric.NCCL if config.gpus_per_worker else fabric.RING
    )
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    if strategy.num_replicas_in_sync != num_replicas:
        raise RuntimeError(
            f"the strategy has {strategy.num_replicas_in_sync} replicas, the config asks for {num_replicas} "
            f"({config.workers} workers x {config.replicas_per_worker} devices): TF_CONFIG is not this run's"
        )
    return strategy


def sum_over_workers(strategy: tf.distribute.Strategy, values: tf.Tensor) -> tf.Tensor:
    """The sum over workers of a vector that each worker holds once. A collective: every worker must call it."""
    if strategy.num_replicas_in_sync == 1:
        return values
    workers = strategy.cluster_resolver.cluster_spec().num_tasks("worker")
    local = strategy.num_replicas_in_sync // workers

    def replica_sum(part: tf.Tensor) -> tf.Tensor:
        # The identity puts the vector on the replica's device; an argument has none, and the collective needs one.
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(part))

    @tf.function
    def summed(part: tf.Tensor) -> tf.Tensor:
        return strategy.experimental_local_results(strategy.run(replica_sum, (part,)))[0]

    return summed(values / local)
