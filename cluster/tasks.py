"""Ray Data tasks over a list of rows, results in order; a user's mistake inside a task comes out as one sentence.

Ray Data wraps what a task raises and keeps the original only as text in a stack trace. So a task hands a `ValueError`
back as a value, and whoever takes the results raises it again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray.data

FAILURE = "failure"

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Guarded:
    """A function of a row or block whose ValueError becomes `{FAILURE: [its message]}`."""

    function: Callable[[Any], Row]

    def __call__(self, given: Any) -> Row:
        """The function's result, or its failure."""
        try:
            return self.function(given)
        except ValueError as error:
            return {FAILURE: [str(error)]}


def raise_failure(result: Row) -> None:
    """Raises the ValueError that a guarded function met, if it did."""
    if FAILURE in result:
        raise ValueError(str(result[FAILURE][0]))


def map_in_order(function: Callable[[Row], Row], rows: Sequence[Row], concurrency: int | None = None) -> Iterator[Row]:
    """`function` of each row, one Ray task of one CPU each, at most `concurrency` at a time; in the order of the rows.

    Raises:
      ValueError: as the function.
    """
    mapped = ray.data.from_items(list(rows), override_num_blocks=len(rows)).map(
        Guarded(function), concurrency=concurrency
    )
    for result in mapped.iter_rows():
        raise_failure(result)
        yield result
