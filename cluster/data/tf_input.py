"""A worker's batches -> `tf.data` -> batches distributed to its devices, prefetched."""

from __future__ import annotations

import itertools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from cluster.config import RunSpec
from cluster.data.ingest import Rows
from textscanner.training.step import batch_signature


class DistributedBatches:
    """Iterator over a worker's batches as the strategy distributes them.

    An exception in the pipeline is re-raised unchanged, not as the `tf.errors.OpError` that TensorFlow turns it into.

    Args:
      batches: the worker's batches; each is split evenly among its replicas.
    """

    def __init__(self, spec: RunSpec, batches: Iterator[Rows], strategy: tf.distribute.Strategy) -> None:
        self._error: BaseException | None = None
        replicas = spec.runtime.train.replicas_per_worker
        signature = batch_signature(spec.config, spec.replica_batch_size)

        def replica_batches() -> Iterator[Rows]:
            try:
                for batch in batches:
                    for i in range(replicas):
                        yield {name: np.split(batch[name], replicas)[i] for name in signature}
            except Exception as error:
                self._error = error
                raise

        def dataset(_: tf.distribute.InputContext) -> tf.data.Dataset:
            rows = tf.data.Dataset.from_generator(replica_batches, output_signature=signature)
            # Declared infinite: otherwise the strategy asks all workers before each step whether there is a next batch.
            endless = rows.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
            return endless.prefetch(spec.runtime.data.prefetch_batches * replicas)

        self._iterator = iter(strategy.distribute_datasets_from_function(dataset))

    def __iter__(self) -> DistributedBatches:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._iterator)
        except tf.errors.OpError:
            if self._error is not None:
                raise self._error from None
            raise


def log_rows(
    batches: Iterator[Any], strategy: tf.distribute.Strategy, folder: str, *, rank: int, start_step: int
) -> Iterator[Any]:
    """Yields the batches; before each, appends its step and row ids to the worker's file in `folder`.

    Steps that are repeated after a restart are in the file repeatedly.
    """
    path = pathlib.Path(folder) / f"rows-{rank}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    for step, batch in zip(itertools.count(start_step + 1), batches, strict=False):
        parts = strategy.experimental_local_results(batch["row_id"])
        row_ids = np.concatenate([part.numpy() for part in parts]).tolist()
        with path.open("a") as file:
            file.write(json.dumps({"step": step, "row_ids": row_ids}) + "\n")
        yield batch
