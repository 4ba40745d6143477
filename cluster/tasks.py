"""Ray Data tasks over a list of rows, with results in order and user errors passed through.

Ray Data wraps an exception of a task and keeps the original only as text in a stack trace, which is right for a bug. A
UserError or StorageError should reach the user as it was raised: the task returns it as a row, and the consumer of the
results raises it again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ray.data

from cluster.errors import StorageError
from textscanner.errors import UserError

FAILURE = "failure"

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class CaptureErrors:
    """Wraps a function of a row or batch: a UserError or StorageError becomes the row `{FAILURE: [class, message]}`."""

    function: Callable[[Any], Row]

    def __call__(self, argument: Any) -> Row:
        try:
            return self.function(argument)
        except (UserError, StorageError) as error:
            error_class = StorageError if isinstance(error, StorageError) else UserError
            return {FAILURE: [error_class.__name__, str(error)]}


def raise_failure(result: Mapping[str, Any]) -> None:
    """Raises the UserError or StorageError that `CaptureErrors` returned as a row; does nothing for another row."""
    if FAILURE not in result:
        return
    error_class, message = result[FAILURE]
    raise (StorageError if error_class == StorageError.__name__ else UserError)(str(message))


def map_in_order(function: Callable[[Row], Row], rows: Sequence[Row], concurrency: int | None = None) -> Iterator[Row]:
    """Applies a function to each row in a Ray task of its own, and yields the results in the order of the rows.

    Args:
      function: takes and returns a row; must be picklable.
      rows: at least one.
      concurrency: tasks at a time; as many as the cluster has CPUs by default.

    Raises:
      UserError, StorageError: as `function`.
    """
    # One block per row makes one task per row.
    mapped = ray.data.from_items(list(rows), override_num_blocks=len(rows)).map(
        CaptureErrors(function), concurrency=concurrency
    )
    for result in mapped.iter_rows():
        raise_failure(result)
        yield result
