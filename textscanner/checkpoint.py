"""Checkpoints: a folder with everything needed for inference and for resuming training.

`checkpoint_files.py` names its files. safetensors stores plain arrays: loading runs no code. Names and shapes are
checked on loading. Under a distribution strategy all workers hold identical values, so rank 0's copy is the checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf

from textscanner.charset import FIRST_CHARACTER_ID, Charset
from textscanner.checkpoint_files import CONFIG_NAME, NO_VOCABULARY, STATE_NAME, TRAINING_NAME, WEIGHTS_NAME
from textscanner.config import Config
from textscanner.config_parsing import difference
from textscanner.errors import UserError
from textscanner.inference.reader import Reader
from textscanner.model import build_without_pretrained
from textscanner.model.heads import CLASS_LOGITS
from textscanner.model.language import LANGUAGE_EMBEDDING, LANGUAGE_LOGITS
from textscanner.training.step import TrainingState


@dataclasses.dataclass(frozen=True)
class CheckpointMeta:
    """What `state.json` stores beside the arrays.

    Attributes:
      step: training steps done; a resumed run continues its data order there.
      threshold: of the decoder, 0..1, calibrated on validation words; before the first validation that of `train.init`.
      metrics: of the last validation before saving.
    """

    step: int
    threshold: float
    metrics: dict[str, float]


def save(folder: str | pathlib.Path, state: TrainingState, meta: CheckpointMeta) -> None:
    """Writes the checkpoint of a training state.

    Args:
      folder: created if it does not exist.
      state: call its `sync_ema` first.
      meta: step, threshold and metrics.

    Raises:
      FloatingPointError: an array is not finite; nothing is written. The loop has checked the losses of all steps, but
        those say nothing of the last step's own update.
    """
    weights, training = (_array_values(v) for v in (_by_path(state.ema_model.weights), _training_variables(state)))
    for name, array in (weights | training).items():
        if not np.isfinite(array).all():
            raise FloatingPointError(
                f"step {meta.step}: {name} is not finite; lower optimizer.learning_rate or set optimizer.clip_norm"
            )
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_arrays(folder / WEIGHTS_NAME, weights)
    _write_arrays(folder / TRAINING_NAME, training)
    (folder / CONFIG_NAME).write_text(json.dumps(state.config.to_dict(), indent=2))
    values = dataclasses.asdict(meta) | {"versions": {"tensorflow": tf.__version__, "keras": keras.__version__}}
    (folder / STATE_NAME).write_text(json.dumps(values, indent=2))


def load(path: str | pathlib.Path, vocabulary: str = NO_VOCABULARY) -> Reader:
    """Loads a checkpoint for reading; needs neither Ray nor a cluster.

    Args:
      path: the folder.
      vocabulary: word prior, see `textscanner.load`.

    Raises:
      UserError: the folder is not a checkpoint or is damaged, or there is no such vocabulary.
    """
    folder = pathlib.Path(path)
    meta, config = read_meta(folder), read_config(folder)
    model = build_without_pretrained(config)
    _assign(_by_path(model.weights), _read_arrays(folder / WEIGHTS_NAME), folder / WEIGHTS_NAME)
    return Reader(config, model, step=meta.step, metrics=meta.metrics, threshold=meta.threshold, vocabulary=vocabulary)


def restore(folder: str | pathlib.Path, state: TrainingState) -> CheckpointMeta:
    """Resumes: loads weights, optimizer variables and step into a training state. Every worker calls it.

    Raises:
      UserError: the folder is not a checkpoint, is damaged, or belongs to another network.
    """
    folder = pathlib.Path(folder)
    meta = read_meta(folder)
    _assign(_training_variables(state), _read_arrays(folder / TRAINING_NAME), folder / TRAINING_NAME)
    state.sync_ema()
    if state.step != meta.step:
        raise UserError(
            f"{folder} is damaged: the optimizer is at step {state.step}, {STATE_NAME} says {meta.step}; "
            "resume from another checkpoint"
        )
    return meta


def initialize(path: str | pathlib.Path, state: TrainingState) -> list[str]:
    """Initializes a new run with the weights of a checkpoint. Layers that do not fit keep their random weights.

    If the charsets differ, the classifier keeps the weights of the characters that both have; a letter that only the
    new one has starts as its other case.

    Returns:
      names of the layers that do not fit: a head whose maximum label length differs, the classifier if a character is
      new, or layers of another network.

    Raises:
      UserError: the checkpoint cannot be read, or most of its weights do not fit.
    """
    folder = pathlib.Path(path)
    arrays = _read_arrays(folder / WEIGHTS_NAME)
    old_charset, new_charset = read_config(folder).charset, state.config.charset
    classes = _matching_classes(old_charset, new_charset)
    not_loaded: list[str] = []
    for name, variable in _by_path(state.model.weights).items():
        array = arrays.get(name)
        axis = _class_axis(name)
        # The array may have the right shape but stand for other characters.
        if array is not None and axis is not None:
            array = _rearrange(array, np.array(variable.numpy()), axis, classes, old_charset.num_classes)
            if (classes < 0).any():
                not_loaded.append(name)
        if array is not None and array.shape == tuple(variable.shape):
            variable.assign(array)
        else:
            not_loaded.append(name)
    if len(not_loaded) > len(state.model.weights) / 2:
        raise UserError(
            f"train.init is {path}: {len(not_loaded)} of {len(state.model.weights)} weights do not fit this network; "
            "the checkpoint is of another preset. Give one of the same preset, or none for random weights"
        )
    state.sync_ema()
    return sorted({name.rpartition("/")[0] for name in not_loaded})


def init_differences(path: str | pathlib.Path, config: Config) -> list[str]:
    """What the weights of a checkpoint were trained for and `config` is not: weights may fit and yet mean other things.

    Returns:
      `section.key old -> new` for each value of charset, model and targets that differs.

    Raises:
      UserError: the checkpoint's config cannot be read.
    """
    old, new = (
        {section: values[section] for section in ("charset", "model", "targets")}
        for values in (read_config(pathlib.Path(path)).to_dict(), config.to_dict())
    )
    return [line.replace(": ", " ", 1) for line in difference(old, new)]


def _matching_classes(old: Charset, new: Charset) -> np.ndarray:
    """For each class of `new` the id of its character in `old`, or of its other case, or -1: int32 [classes]."""
    ids = {character: i for i, character in enumerate(old.characters, FIRST_CHARACTER_ID)}
    characters = (ids.get(c, ids.get(c.swapcase(), -1)) for c in new.characters)
    return np.array([*range(FIRST_CHARACTER_ID), *characters], np.int32)


def _class_axis(name: str) -> int | None:
    """The axis of an array that ends in one entry per class; None if there is none."""
    if name.startswith((f"{CLASS_LOGITS}/", f"{LANGUAGE_LOGITS}/")):
        return -1
    return 0 if name == f"{LANGUAGE_EMBEDDING}/kernel" else None


def _rearrange(old: np.ndarray, new: np.ndarray, axis: int, classes: np.ndarray, num_old: int) -> np.ndarray:
    """The entries of `old`, rearranged along an axis for the classes of another charset.

    Args:
      old, new: the axis ends in the classes of the old and of the new charset; what precedes them on it is kept.
      axis: 0 or -1.
      classes: from `_matching_classes`; -1 keeps the entry of `new`.
      num_old: classes of the old charset.

    Returns:
      an array of the shape of `new`; `old` if the other sizes differ.
    """
    old_first, new_first = np.moveaxis(old, axis, 0), np.moveaxis(new, axis, 0)
    num_before = len(new_first) - len(classes)
    if old_first.shape[1:] != new_first.shape[1:] or len(old_first) != num_before + num_old:
        return old
    matched = old_first[num_before + np.maximum(classes, 0)]
    is_new = (classes < 0).reshape(-1, *[1] * (new.ndim - 1))
    entries = np.concatenate([old_first[:num_before], np.where(is_new, new_first[num_before:], matched)])
    return np.moveaxis(entries, 0, axis)


def export_weights(path: str | pathlib.Path, out: str | pathlib.Path) -> None:
    """Writes a checkpoint for distribution: float16 weights, no training state, no URIs of data sets.

    Maintainers put new weights into the package with it; no command calls it:

        python -c 'from textscanner.checkpoint import export_weights as e; e("CHECKPOINT", "textscanner/weights/NAME")'

    Args:
      path: the checkpoint.
      out: folder; created if it does not exist.
    """
    source, target = pathlib.Path(path), pathlib.Path(out)
    target.mkdir(parents=True, exist_ok=True)
    arrays = _read_arrays(source / WEIGHTS_NAME)
    _write_arrays(target / WEIGHTS_NAME, {name: array.astype(np.float16) for name, array in arrays.items()})
    config = read_config(source)
    data = dataclasses.replace(config.data, train=(), val=(), weights=())
    public = dataclasses.replace(config, data=data, train=dataclasses.replace(config.train, init=""))
    (target / CONFIG_NAME).write_text(json.dumps(public.to_dict(), indent=2))
    (target / STATE_NAME).write_bytes((source / STATE_NAME).read_bytes())


def read_meta(folder: pathlib.Path) -> CheckpointMeta:
    """Reads `state.json`.

    Raises:
      UserError: it is missing or cannot be read.
    """
    values = _read_json(folder, STATE_NAME)
    try:
        return CheckpointMeta(int(values["step"]), float(values["threshold"]), dict(values["metrics"]))
    except KeyError as error:
        problem = f"it has no {error}"
    except (TypeError, ValueError) as error:
        problem = str(error)
    raise UserError(f"{folder / STATE_NAME} is damaged: {problem}; use another checkpoint")


def read_config(folder: pathlib.Path) -> Config:
    """Reads `config.json`.

    Raises:
      UserError: it is missing or not valid.
    """
    return Config.from_dict(_read_json(folder, CONFIG_NAME), str(folder / CONFIG_NAME))


def _read_json(folder: pathlib.Path, name: str) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / name).read_text()))
    except (OSError, TypeError, ValueError) as error:  # TypeError: JSON, but not an object
        raise UserError(
            f"{folder} is not a checkpoint ({name}: {error.__class__.__name__}); "
            f"give a folder with {CONFIG_NAME}, {STATE_NAME} and {WEIGHTS_NAME}"
        ) from None


def _by_path(variables: Sequence[Any]) -> dict[str, Any]:
    """Keras variables by their path, for example `class_logits/kernel`."""
    by_path = {v.path: v for v in variables}
    assert len(by_path) == len(variables), "two layers have the same name"
    return by_path


def _training_variables(state: TrainingState) -> dict[str, Any]:
    """Model and optimizer variables by name. Optimizer variables are numbered: Keras does not promise unique paths."""
    variables = {f"model/{path}": v for path, v in _by_path(state.model.weights).items()}
    # The learning rate is not state: it follows from the step and the config.
    stateful = [v for v in state.optimizer.variables if v is not state.optimizer._learning_rate]
    return variables | {f"optimizer/{i:04d}/{v.path}": v for i, v in enumerate(stateful)}


def _array_values(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(v.numpy()) for name, v in variables.items()}


def _write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    # safetensors needs C-contiguous arrays. Not np.ascontiguousarray: it would make 0-d counters 1-d.
    safetensors.numpy.save_file({name: np.array(array, order="C") for name, array in arrays.items()}, path)


def _read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} cannot be read: {error}; the checkpoint is damaged, use another one") from None


def _assign(variables: Mapping[str, Any], arrays: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    """Assigns arrays to the variables of the same names; `path` is their file, for errors.

    Raises:
      UserError: names or shapes differ.
    """
    missing, unexpected = sorted(variables.keys() - arrays.keys()), sorted(arrays.keys() - variables.keys())
    if missing or unexpected:
        raise UserError(
            f"{path} belongs to another network or optimizer: it lacks {len(missing)} arrays ({missing[:3]}) and has "
            f"{len(unexpected)} unknown ones ({unexpected[:3]})"
        )
    for name, variable in variables.items():
        if tuple(variable.shape) != arrays[name].shape:
            raise UserError(f"{path}: {name} has shape {arrays[name].shape}, expected {tuple(variable.shape)}")
        variable.assign(arrays[name])
