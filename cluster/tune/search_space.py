"""Search spaces: which keys of a config a sweep varies, over which values; checked against the config before it starts.

A space is Python (`SearchSpace({...})`), one of the named ones below, or a TOML or YAML file:

    optimizer.learning_rate = { loguniform = [3e-4, 6e-3] }
    losses.word_weight = { choice = [0.0, 0.5, 1.0] }
    losses.word_supervision_ramp_steps = { randint = [50, 500], when = { "losses.word_weight" = [0.5, 1.0] } }

A key with `when` keeps the preset's value in trials where the other key has none of those values. Values become part of
a config through the same `override` as `--set`, so a space can say nothing that a command line could not.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import tomllib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import yaml

from textscanner.config import Config, override

KINDS = ("uniform", "loguniform", "randint", "choice")
# They are the sweep's clock, its trials' size or its data: the same for all trials, so that trials compare.
FIXED = (
    *("data.train", "data.val", "train.num_steps", "train.workers", "train.gpus_per_worker", "train.cpus_per_worker"),
    *("train.validate_every_steps", "train.checkpoint_every_steps", "train.best_metric"),
)
TRIED_SAMPLES = 100  # random samples that must make a config before a sweep starts

Value = bool | int | float | str
Sample = dict[str, Value]
"""Key -> value. Lists are JSON text, as on a command line."""


@dataclasses.dataclass(frozen=True)
class Domain:
    """The values of one key.

    Attributes:
      kind: `uniform` and `loguniform` over [low, high], `randint` over whole numbers low..high, `choice` of a list.
      values: (low, high), or the choices.
      when: (another key, the values of it with which this key is varied); None for always.
    """

    kind: Literal["uniform", "loguniform", "randint", "choice"]
    values: tuple[Value, ...]
    when: tuple[str, tuple[Value, ...]] | None = None

    def __post_init__(self) -> None:
        if self.kind == "choice":
            if not self.values:
                raise ValueError("choice is empty: give at least one value")
            return
        numbers = [v for v in self.values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if len(numbers) != 2 or len(self.values) != 2 or not numbers[0] < numbers[1]:
            raise ValueError(f"{self.kind} is {list(self.values)}: must be [low, high] with low below high")
        if self.kind == "loguniform" and numbers[0] <= 0:
            raise ValueError(f"loguniform is {list(self.values)}: must lie above 0")
        if self.kind == "randint" and not all(isinstance(v, int) for v in numbers):
            raise ValueError(f"randint is {list(self.values)}: must be whole numbers")

    @property
    def bounds(self) -> tuple[float, float]:
        """Low and high of a numeric domain."""
        low, high = self.values
        return float(low), float(high)

    def draw(self, rng: np.random.Generator) -> Value:
        """A random value."""
        if self.kind == "choice":
            return self.values[int(rng.integers(len(self.values)))]
        low, high = self.bounds
        if self.kind == "randint":
            return int(rng.integers(int(low), int(high) + 1))
        if self.kind == "loguniform":
            return float(math.exp(rng.uniform(math.log(low), math.log(high))))
        return float(rng.uniform(low, high))

    def nearest(self, value: Value) -> Value:
        """A value itself where the domain has it, else the end of the range that it passed; one of a choice stays."""
        if self.kind == "choice":
            return value
        low, high = self.bounds
        kept = min(max(float(value), low), high)
        return round(kept) if self.kind == "randint" else kept


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """The varied keys and their domains."""

    domains: Mapping[str, Domain]

    def active(self, sample: Sample) -> Sample:
        """The part of a sample whose conditions are met."""

        def met(domain: Domain) -> bool:
            return domain.when is None or sample.get(domain.when[0]) in domain.when[1]

        return {key: value for key, value in sample.items() if met(self.domains[key])}

    def apply(self, config: Config, sample: Sample) -> Config:
        """The config with a sample's values.

        Raises:
          ValueError: the values together break a rule of the config.
        """
        return override(config, [f"{key}={value}" for key, value in self.active(sample).items()])

    def within(self, sample: Sample) -> Sample:
        """A sample with each value moved into its domain."""
        return sample | {key: domain.nearest(sample[key]) for key, domain in self.domains.items()}

    def draw(self, rng: np.random.Generator) -> Sample:
        """A random sample, conditions not looked at."""
        return {key: domain.draw(rng) for key, domain in self.domains.items()}


def check_space(space: SearchSpace, config: Config) -> None:
    """Refuses a space that does not fit the config, before anything starts.

    Raises:
      ValueError: naming the key and what is wrong: it is unknown or fixed, a value has the wrong type or breaks a
        rule, a condition names a key that is not varied, or values do not go together.
    """
    if not space.domains:
        raise ValueError("the space is empty: it must vary at least one key")
    for key, domain in space.domains.items():
        if key in FIXED:
            raise ValueError(f"space: {key} cannot be varied, it is the same for all trials: use --set {key}=VALUE")
        if domain.when and domain.when[0] not in space.domains:
            raise ValueError(f"space: {key} depends on {domain.when[0]}, which the space does not vary")
        for value in domain.values:
            _try(config, {key: value})
    rng = np.random.default_rng(0)
    for _ in range(TRIED_SAMPLES):
        _try(config, space.active(space.draw(rng)))


def _try(config: Config, values: Sample) -> None:
    try:
        override(config, [f"{key}={value}" for key, value in values.items()])
    except ValueError as error:
        told = ", ".join(f"{key}={value}" for key, value in values.items())
        raise ValueError(f"space: {told} makes no config: {str(error).removeprefix('--set ')}") from None


def load_space(name_or_path: str) -> SearchSpace:
    """A named space, or the one of a .toml, .yaml or .yml file.

    Raises:
      ValueError: there is none of that name, or the file is not a space.
    """
    if name_or_path in SPACES:
        return SPACES[name_or_path]
    path = pathlib.Path(name_or_path)
    if path.suffix not in (".toml", ".yaml", ".yml"):
        raise ValueError(f"--space is {name_or_path!r}: give {', '.join(SPACES)}, or a .toml or .yaml file")
    try:
        text = path.read_text("utf-8")
        told = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"--space {name_or_path} cannot be read: {error}") from None
    return parse_space(told)


def parse_space(told: Any) -> SearchSpace:
    """A space from nested mappings, section -> key -> {kind: values}; `section.key` may also be written in one.

    Raises:
      ValueError: naming the key that is not of that form.
    """
    if not isinstance(told, dict):
        raise ValueError("the space must be a mapping of keys to domains")
    found: dict[str, Domain] = {}
    for section, keys in told.items():
        entries = {section: keys} if "." in section else {f"{section}.{k}": v for k, v in _mapping(section, keys)}
        for key, domain in entries.items():
            found[key] = _domain(key, domain)
    return SearchSpace(found)


def _mapping(name: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise ValueError(f"space: {name} is {value!r}: wanted a section of the config with keys in it")
    return list(value.items())


def _domain(key: str, told: Any) -> Domain:
    kinds: list[Any] = [kind for kind in KINDS if isinstance(told, dict) and kind in told]
    if len(kinds) != 1 or set(told) - {kinds[0], "when"} or not isinstance(told[kinds[0]], list):
        raise ValueError(f"space: {key} is {told!r}: wanted one of {', '.join(KINDS)} with a list, and at most `when`")
    when = told.get("when")
    if when is not None and (not isinstance(when, dict) or len(when) != 1):
        raise ValueError(f'space: {key}.when is {when!r}: wanted {{ "other.key" = [values] }}')
    try:
        condition = next(((k, _scalars(v)) for k, v in when.items()), None) if when else None
        return Domain(kinds[0], _scalars(told[kinds[0]]), condition)
    except ValueError as error:
        raise ValueError(f"space: {key}: {error}") from None


def _scalars(values: list[Any]) -> tuple[Value, ...]:
    """Lists become JSON text, as on a command line: searchers want scalars."""
    return tuple(json.dumps(v) if isinstance(v, list) else v for v in values)


def finetune() -> SearchSpace:
    """From weights that read already to one's own words: how fast, how long the average, what teaches."""
    return SearchSpace(
        {
            "optimizer.learning_rate": Domain("loguniform", (2e-4, 6e-3)),
            "optimizer.weight_decay": Domain("loguniform", (1e-6, 1e-2)),
            "optimizer.ema_momentum": Domain("choice", (0.98, 0.99, 0.995, 0.998)),
            "optimizer.final_lr_fraction": Domain("choice", (0.01, 0.1)),
            "losses.word_weight": Domain("choice", (0.0, 0.5, 1.0, 2.0)),
            "losses.mutual_weight": Domain("choice", (0.0, 0.3, 1.0)),
        }
    )


def scratch() -> SearchSpace:
    """From random weights: the step, and how the three maps are weighed and drawn."""
    return SearchSpace(
        {
            "optimizer.learning_rate": Domain("loguniform", (5e-4, 1e-2)),
            "optimizer.weight_decay": Domain("loguniform", (1e-6, 1e-2)),
            "optimizer.clip_norm": Domain("choice", (1.0, 5.0, 20.0)),
            "losses.order_weight": Domain("loguniform", (0.5, 10.0)),
            "losses.localization_weight": Domain("loguniform", (0.3, 10.0)),
            "losses.localization": Domain("choice", ("squared", "smooth_l1")),
            "targets.sigma_box": Domain("uniform", (0.15, 0.4)),
            "targets.class_threshold": Domain("uniform", (0.2, 0.7)),
        }
    )


SPACES: dict[str, SearchSpace] = {"finetune": finetune(), "scratch": scratch()}
