"""Search spaces: the config keys that a sweep varies and their domains, checked against the config before it starts.

A space is Python (`SearchSpace({...})`), a named one of `SPACES`, or a TOML or YAML file:

    optimizer.learning_rate = { loguniform = [3e-4, 6e-3] }
    losses.word_weight = { choice = [0.0, 0.5, 1.0] }
    losses.word_supervision_ramp_steps = { randint = [50, 500], when = { "losses.word_weight" = [0.5, 1.0] } }

A key with `when` is conditional: it keeps the base config's value in trials where the other key has none of the listed
values. Sampled values are applied like assignments of the command line, but to the `Config` only: keys of the runtime
cannot be varied.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import tomllib
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import yaml

from textscanner.config import Config, override
from textscanner.errors import UserError

DomainKind = Literal["uniform", "loguniform", "randint", "choice"]
# Keys that are the same for all trials, so that trials can be compared: a trial's length, its size and its data.
FIXED_KEYS = (
    *("data.train", "data.val", "train.num_steps", "train.workers", "train.gpus_per_worker", "train.cpus_per_worker"),
    *("train.validate_every_steps", "train.checkpoint_every_steps", "train.best_metric"),
)
NUM_CHECKED_SAMPLES = 100  # random samples that must each make a valid config before a sweep starts

Value = bool | int | float | str
Sample = dict[str, Value]
"""Config key -> value. Lists are JSON text, as on a command line."""


@dataclasses.dataclass(frozen=True)
class Domain:
    """The values of one key.

    Attributes:
      kind: `uniform` and `loguniform` over [low, high], `randint` over the integers low..high, both included, or
        `choice` of a list.
      values: (low, high), or the choices.
      when: (another key, its values for which this key is varied); None for always.

    Raises:
      UserError: the values do not fit the kind.
    """

    kind: DomainKind
    values: tuple[Value, ...]
    when: tuple[str, tuple[Value, ...]] | None = None

    def __post_init__(self) -> None:
        if self.kind == "choice":
            if not self.values:
                raise UserError("choice is empty: give at least one value")
            return
        numbers = [v for v in self.values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if len(numbers) != 2 or len(self.values) != 2 or not numbers[0] < numbers[1]:
            raise UserError(f"{self.kind} is {list(self.values)}: must be [low, high] with low below high")
        if self.kind == "loguniform" and numbers[0] <= 0:
            raise UserError(f"loguniform is {list(self.values)}: must lie above 0")
        if self.kind == "randint" and not all(isinstance(v, int) for v in numbers):
            raise UserError(f"randint is {list(self.values)}: must be whole numbers")

    @property
    def bounds(self) -> tuple[float, float]:
        """(low, high) of a numeric domain."""
        low, high = self.values
        return float(low), float(high)

    def draw(self, rng: np.random.Generator) -> Value:
        """Samples a value."""
        if self.kind == "choice":
            return self.values[int(rng.integers(len(self.values)))]
        low, high = self.bounds
        if self.kind == "randint":
            return int(rng.integers(int(low), int(high) + 1))
        if self.kind == "loguniform":
            return float(math.exp(rng.uniform(math.log(low), math.log(high))))
        return float(rng.uniform(low, high))

    def contains(self, value: Value) -> bool:
        if self.kind == "choice":
            return value in self.values
        low, high = self.bounds
        return low <= float(value) <= high

    def clip(self, value: Value) -> Value:
        """Clips a number to [low, high]; the value of a choice is returned as it is."""
        if self.kind == "choice":
            return value
        low, high = self.bounds
        clipped = min(max(float(value), low), high)
        return round(clipped) if self.kind == "randint" else clipped


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """The varied keys and their domains."""

    domains: Mapping[str, Domain]

    def active(self, sample: Sample) -> Sample:
        """The part of a sample whose conditions (`when`) are met."""

        def is_active(domain: Domain) -> bool:
            return domain.when is None or sample.get(domain.when[0]) in domain.when[1]

        return {key: value for key, value in sample.items() if is_active(self.domains[key])}

    def apply(self, config: Config, sample: Sample) -> Config:
        """The config with the active values of a sample.

        Raises:
          UserError: the values together break a rule of the config.
        """
        return override(config, [f"{key}={value}" for key, value in self.active(sample).items()])

    def clip(self, sample: Sample) -> Sample:
        """Clips each value to its domain."""
        return sample | {key: domain.clip(sample[key]) for key, domain in self.domains.items()}

    def restrict(self, sample: Sample) -> Sample | None:
        """The values of this space's keys in a sample of another; None if one is missing or outside its domain."""
        restricted: Sample = {}
        for key, domain in self.domains.items():
            if key not in sample or not domain.contains(sample[key]):
                return None
            restricted[key] = sample[key]
        return restricted

    def draw(self, rng: np.random.Generator) -> Sample:
        """Samples every key, whatever its condition."""
        return {key: domain.draw(rng) for key, domain in self.domains.items()}


def check_space(space: SearchSpace, config: Config) -> None:
    """Checks before a sweep starts that every value, and random combinations of them, make a valid config.

    Raises:
      UserError: names the key that is unknown or fixed, has a value of the wrong type or one that breaks a rule, or
        depends on a key that is not varied; or the values that do not fit together.
    """
    if not space.domains:
        raise UserError("the space is empty: it must vary at least one key")
    for key, domain in space.domains.items():
        if key in FIXED_KEYS:
            raise UserError(f"space: {key} must be the same for all trials: set {key}=VALUE for the whole sweep")
        if domain.when and domain.when[0] not in space.domains:
            raise UserError(f"space: {key} depends on {domain.when[0]}, which the space does not vary")
        for value in domain.values:
            _check_sample(config, {key: value})
    rng = np.random.default_rng(0)
    for _ in range(NUM_CHECKED_SAMPLES):
        _check_sample(config, space.active(space.draw(rng)))


def _check_sample(config: Config, sample: Sample) -> None:
    assignments = [f"{key}={value}" for key, value in sample.items()]
    try:
        override(config, assignments)
    except UserError as error:
        raise UserError(f"space: {', '.join(assignments)} is not a valid config: {error}") from None


def load_space(name_or_path: str) -> SearchSpace:
    """Returns a named space, or reads one from a .toml, .yaml or .yml file.

    Raises:
      UserError: there is no space of that name, or the file cannot be read or is not a space.
    """
    if name_or_path in SPACES:
        return SPACES[name_or_path]
    path = pathlib.Path(name_or_path)
    if path.suffix not in (".toml", ".yaml", ".yml"):
        raise UserError(f"space is {name_or_path!r}: must be {', '.join(SPACES)}, or a .toml or .yaml file")
    try:
        text = path.read_text("utf-8")
        sections = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise UserError(f"space is {name_or_path!r}: the file cannot be read: {error}") from None
    return parse_space(sections)


def parse_space(sections: Any) -> SearchSpace:
    """Parses nested mappings, section -> key -> {kind: values}; `section.key` may also be one string.

    Raises:
      UserError: names the key that does not have this form.
    """
    if not isinstance(sections, dict):
        raise UserError("the space must be a mapping of keys to domains")
    domains: dict[str, Domain] = {}
    for section, keys in sections.items():
        entries = {section: keys} if "." in section else {f"{section}.{k}": v for k, v in _items(section, keys)}
        for key, entry in entries.items():
            domains[key] = _parse_domain(key, entry)
    return SearchSpace(domains)


def _items(section: str, keys: Any) -> list[tuple[str, Any]]:
    if not isinstance(keys, dict):
        raise UserError(f"space: {section} is {keys!r}: must be a section of the config with keys in it")
    return list(keys.items())


def _parse_domain(key: str, entry: Any) -> Domain:
    kinds: list[DomainKind] = [kind for kind in get_args(DomainKind) if isinstance(entry, dict) and kind in entry]
    if len(kinds) != 1 or set(entry) - {kinds[0], "when"} or not isinstance(entry[kinds[0]], list):
        raise UserError(
            f"space: {key} is {entry!r}: must have one of {', '.join(get_args(DomainKind))} with a list, "
            "and nothing else but `when`"
        )
    when = entry.get("when")
    if when is not None and (not isinstance(when, dict) or len(when) != 1):
        raise UserError(f'space: {key}.when is {when!r}: must be {{ "other.key" = [values] }}')
    try:
        condition = next(((other, _scalars(values)) for other, values in when.items()), None) if when else None
        return Domain(kinds[0], _scalars(entry[kinds[0]]), condition)
    except UserError as error:
        raise UserError(f"space: {key}: {error}") from None


def _scalars(values: list[Any]) -> tuple[Value, ...]:
    """Replaces lists by their JSON text, as on a command line: search algorithms want scalars."""
    return tuple(json.dumps(v) if isinstance(v, list) else v for v in values)


def finetune() -> SearchSpace:
    """For fine-tuning pretrained weights on one's own words: learning rate, regularization, loss weights."""
    return SearchSpace(
        {
            "optimizer.learning_rate": Domain("loguniform", (2e-4, 6e-3)),
            "optimizer.weight_decay": Domain("loguniform", (1e-3, 0.2)),
            "optimizer.ema_momentum": Domain("choice", (0.98, 0.99, 0.995, 0.998)),
            "optimizer.final_lr_fraction": Domain("choice", (0.01, 0.1)),
            "losses.word_weight": Domain("choice", (0.0, 0.5, 1.0, 2.0)),
            "losses.mutual_weight": Domain("choice", (0.0, 0.3, 1.0)),
        }
    )


def scratch() -> SearchSpace:
    """For training from random weights: learning rate, clipping, and how target maps are drawn and weighted."""
    return SearchSpace(
        {
            "optimizer.learning_rate": Domain("loguniform", (5e-4, 1e-2)),
            "optimizer.weight_decay": Domain("loguniform", (1e-3, 0.2)),
            "optimizer.clip_norm": Domain("choice", (1.0, 5.0, 20.0)),
            "losses.order_weight": Domain("loguniform", (0.5, 10.0)),
            "losses.localization_weight": Domain("loguniform", (0.3, 10.0)),
            "losses.localization": Domain("choice", ("squared", "smooth_l1")),
            "targets.sigma_box": Domain("uniform", (0.15, 0.4)),
            "targets.class_threshold": Domain("uniform", (0.2, 0.7)),
        }
    )


SPACES: dict[str, SearchSpace] = {"finetune": finetune(), "scratch": scratch()}
