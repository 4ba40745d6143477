"""JSON objects and `section.key=value` assignments -> validated configs; the difference between two configs.

Knows keys and sections, not what they mean: `Config` (`config.py`) and the runtime config of a cluster are both parsed
here. Also lists the keys that were renamed or moved, so that the error for an old file gives the new name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import pydantic

from textscanner.errors import UserError

T = TypeVar("T")

# Keys of configs written before version 0.1.0 was released, and what to use instead.
_REPLACED_KEYS = {
    "model.context_blocks": "model.attention_blocks",
    "model.imagenet_weights": "model.pretrained_backbone",
    "model.max_length": "model.max_label_length",
    "losses.words_start": "losses.word_supervision_start_step",
    "losses.words_ramp": "losses.word_supervision_ramp_steps",
    "losses.words_rows": "losses.word_supervision_rows",
    "optimizer.accumulation": "optimizer.gradient_accumulation_steps",
    "optimizer.final_fraction": "optimizer.final_lr_fraction",
    "data.task_cpus": "data.cpus_per_read_task",
    "train.global_batch": "train.global_batch_size",
    "train.log_every": "train.log_every_steps",
    "train.validate_every": "train.validate_every_steps",
    "train.checkpoint_every": "train.checkpoint_every_steps",
    "train.picture_every": "train.image_every_steps",
}

# Keys of `cluster/config.py`, most of which configs contained before the two were split. As assignments they are valid.
_MOVED_KEYS = (
    *("train.workers", "train.gpus_per_worker", "train.cpus_per_worker", "train.threads_per_worker"),
    *("train.max_failures", "train.max_skipped_steps", "train.keep_checkpoints", "train.tracker"),
    *("train.checkpoint_every_minutes", "train.mean_hours_between_failures"),
    *("data.task_cpus", "data.cpus_per_read_task", "data.prefetch_batches", "data.cache_dir", "data.cache_gib"),
    "data.row_log_dir",
)


def json_object(content: str | bytes, path: str, remedy: str) -> dict[str, Any]:
    """Parses the JSON object that a file holds.

    Args:
      path: of the file, for the error.
      remedy: what to do if the file is damaged.

    Raises:
      UserError: it is not a JSON object.
    """
    try:
        values = json.loads(content)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; {remedy}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object; {remedy}")
    return values


def parse(adapter: pydantic.TypeAdapter[T], values: Mapping[str, Any]) -> T:
    """The validated object of a JSON-compatible dict.

    Raises:
      UserError: naming each value that is unknown or breaks a rule.
    """
    try:
        return adapter.validate_python(dict(values))
    except pydantic.ValidationError as error:
        raise UserError("; ".join(_explain(problem) for problem in error.errors(include_url=False))) from None


def _explain(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if key in _MOVED_KEYS and problem["type"] == "unexpected_keyword_argument":
        return (
            f"the key {key} is no longer part of a checkpoint's config (it says where and how a run runs): remove it "
            f"from the file; set it with {_REPLACED_KEYS.get(key, key)}=value when training"
        )
    if key in _REPLACED_KEYS:
        return f"{key} was renamed: use {_REPLACED_KEYS[key]}"
    message: str = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return message
    if problem["type"] == "unexpected_keyword_argument":
        message = "there is no such key; remove it"
    return f"{key} is {problem['input']!r}: {message}"


def assign(values: dict[str, Any], assignment: str) -> None:
    """Writes one `section.key=value` assignment into the nested dict of a config.

    Raises:
      UserError: the assignment is not of that form, names no key, or its list is not JSON.
    """
    key, equals, text = assignment.partition("=")
    key = key.strip()
    section, dot, name = key.partition(".")
    if not (equals and dot):
        raise UserError(f"{assignment}: must have the form section.key=value, for example train.num_steps=2000")
    if key in _REPLACED_KEYS:
        raise UserError(f"{assignment}: {key} was renamed: use {_REPLACED_KEYS[key]}")
    known = values.get(section)
    if not isinstance(known, dict):
        sections = [k for k, v in values.items() if isinstance(v, dict)]
        raise UserError(f"{assignment}: no section {section!r}; sections: {', '.join(sections)}")
    if name not in known:
        raise UserError(f"{assignment}: no key {name!r} in {section}; keys: {', '.join(known)}")
    try:
        known[name] = json.loads(text) if text.lstrip().startswith("[") else text.strip()
    except json.JSONDecodeError as error:
        raise UserError(f"{assignment}: not valid JSON: {error}; lists look like [1, 2]") from None


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line per value that differs between two config dicts, `section.key: old -> new`; empty if they are equal."""
    before, after = flatten(old), flatten(new)
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in after if before.get(key) != after[key]]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
