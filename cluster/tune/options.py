"""Names of schedulers, search algorithms and modes of a sweep, and the defaults.

Imports nothing, so that `textscanner tune --help` shows them without loading Ray.
"""

from __future__ import annotations

from typing import Literal

SchedulerName = Literal["asha", "hyperband", "pbt", "median", "fifo"]
SearchName = Literal["random", "tpe", "qmc"]
Mode = Literal["max", "min"]

DEFAULT_SCHEDULER: SchedulerName = "asha"
DEFAULT_SEARCH: SearchName = "random"
DEFAULT_MODE: Mode = "max"
