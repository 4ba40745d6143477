"""Paths of a run and of a sweep in storage."""

from __future__ import annotations

import dataclasses

from textscanner.errors import UserError

SWEEP_NAME = "sweep.json"
TUNE_NAME = "tune"
TRIALS_NAME = "trials"


@dataclasses.dataclass(frozen=True)
class RunLayout:
    """Paths of the run `storage_uri/name`. Ray Train writes its `step_*` checkpoints there, rank 0 its metrics.

    Raises:
      UserError: the name is not a plain folder name.
    """

    storage_uri: str
    name: str

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise UserError(f"name is {self.name!r}: must be a plain folder name without '/' or a leading dot")

    @property
    def root(self) -> str:
        """The run's folder."""
        return f"{self.storage_uri.rstrip('/')}/{self.name}"

    @property
    def config(self) -> str:
        """The run's config, written first and only if absent, so only one of two equally named runs gets it."""
        return f"{self.root}/config.json"

    @property
    def content_hashes(self) -> str:
        """Content hashes of the run's data sets by URI: the run is only resumed on the same content."""
        return f"{self.root}/content_hashes.json"


@dataclasses.dataclass(frozen=True)
class SweepLayout:
    """Paths of the sweep `storage_uri/name`."""

    storage_uri: str
    name: str

    @property
    def root(self) -> str:
        """The sweep's folder."""
        return RunLayout(self.storage_uri, self.name).root

    @property
    def marker(self) -> str:
        """The sweep's settings. This file marks a folder as a sweep's."""
        return f"{self.root}/{SWEEP_NAME}"

    @property
    def trials(self) -> str:
        """Parent of the trials' run folders: the `storage_uri` of each trial's `train_run`."""
        return trials_uri(self.root)

    @property
    def tune(self) -> str:
        """Ray Tune's state. Keep other JSON files out of it: Tune resets each to the content it had on resuming."""
        return f"{self.root}/{TUNE_NAME}"

    @property
    def results(self) -> str:
        """Results so far: all trials with their metrics over time."""
        return f"{self.root}/results.json"

    def table(self, suffix: str) -> str:
        """The table of trials; `suffix` is `csv` or `parquet`."""
        return f"{self.root}/trials.{suffix}"

    @property
    def report(self) -> str:
        """The HTML report."""
        return f"{self.root}/report.html"


def trials_uri(sweep_root: str) -> str:
    """Parent of the run folders of a sweep's trials."""
    return f"{sweep_root.rstrip('/')}/{TRIALS_NAME}"
