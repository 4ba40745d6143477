"""How long a preflight waits: apart from what it does, so that the command's help need not load Ray."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Timeouts:
    """How long is waited, in seconds.

    Attributes:
      nodes_s: for the workers' nodes to come up.
      answer_s: for an answer of the nodes, and for the collective.
      step_s: for a step of the training, the compilation before the first one counted.
    """

    nodes_s: float = 60.0
    answer_s: float = 120.0
    step_s: float = 600.0


DEFAULT_TIMEOUTS = Timeouts()
