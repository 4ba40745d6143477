"""Timeouts of a preflight, in a module of their own so that a command's help need not import Ray."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Timeouts:
    """Timeouts in seconds.

    Attributes:
      nodes_s: for the workers' nodes to come up.
      answer_s: for each answer of the nodes, and for the all-reduce.
      step_s: for each step of the short training; the first includes compilation.
    """

    nodes_s: float = 60.0
    answer_s: float = 120.0
    step_s: float = 600.0


DEFAULT_TIMEOUTS = Timeouts()
