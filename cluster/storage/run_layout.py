"""Paths of a run and of a sweep in storage."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class RunLayout:
    """Paths of a run, `storage_uri/name`. In `root` Ray Train keeps `step_*` checkpoints, the journal its files."""

    storage_uri: str
    name: str

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ValueError(f"--name is {self.name!r}: must be a plain folder name without '/' or a leading dot")

    @property
    def root(self) -> str:
        """The run's folder."""
        return f"{self.storage_uri.rstrip('/')}/{self.name}"

    @property
    def config(self) -> str:
        """The config that claimed the folder."""
        return f"{self.root}/config.json"


@dataclasses.dataclass(frozen=True)
class SweepLayout:
    """Paths of a sweep, `storage_uri/name`."""

    storage_uri: str
    name: str

    @property
    def root(self) -> str:
        """The sweep's folder."""
        return RunLayout(self.storage_uri, self.name).root

    @property
    def marker(self) -> str:
        """What was asked for; where it stands, there is a sweep."""
        return f"{self.root}/{SWEEP_NAME}"

    @property
    def trials(self) -> str:
        """The folder of the trials' run folders: a `storage_uri` for `train_run`."""
        return trials_uri(self.root)

    @property
    def tune(self) -> str:
        """Ray Tune's own folder: it writes back all JSON that it finds there, as it was when it was resumed."""
        return f"{self.root}/{TUNE_NAME}"

    @property
    def results(self) -> str:
        """What came out so far: all trials with their curves."""
        return f"{self.root}/results.json"

    def table(self, suffix: str) -> str:
        """The table of trials, `csv` or `parquet`."""
        return f"{self.root}/trials.{suffix}"

    @property
    def report(self) -> str:
        """The page that explains the sweep."""
        return f"{self.root}/report.html"


SWEEP_NAME = "sweep.json"
TUNE_NAME = "tune"


def trials_uri(sweep_root: str) -> str:
    """The folder of a sweep's runs."""
    return f"{sweep_root}/trials"
