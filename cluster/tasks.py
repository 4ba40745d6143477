"""Ray Data tasks over a list of rows, results in order; a user's mistake inside a task comes out as one sentence.

Ray Data wraps what a task raises and keeps the original only as text in a stack trace. So a task hands a `ValueError`
or `StorageError` back as a value, and whoever takes the results raises it again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray.data

from cluster.errors import StorageError

FAILURE = "failure"
STORAGE = "storage: "

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class CaptureErrors:
    """A function of a row or block whose ValueError or StorageError becomes `{FAILURE: [its kind and message]}`."""

    function: Callable[[Any], Row]

    def __call__(self, given: Any) -> Row:
        """The function's result, or its failure."""
        try:
            return self.function(given)
        except (ValueError, StorageError) as error:
            return {FAILURE: [f"{STORAGE if isinstance(error, StorageError) else ''}{error}"]}


def raise_failure(result: Row) -> None:
    """Raises the ValueError or StorageError that a guarded function met, if it did."""
    if FAILURE in result:
        message = str(result[FAILURE][0])
        raise StorageError(message.removeprefix(STORAGE)) if message.startswith(STORAGE) else ValueError(message)


def map_in_order(function: Callable[[Row], Row], rows: Sequence[Row], concurrency: int | None = None) -> Iterator[Row]:
    """`function` of each row, one Ray task of one CPU each, at most `concurrency` at a time; in the order of the rows.

    Raises:
      ValueError, StorageError: as the function.
    """
    mapped = ray.data.from_items(list(rows), override_num_blocks=len(rows)).map(
        CaptureErrors(function), concurrency=concurrency
    )
    for result in mapped.iter_rows():
        raise_failure(result)
        yield result
