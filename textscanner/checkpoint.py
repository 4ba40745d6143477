"""A checkpoint is a folder: everything to read with it, and everything to go on training from it.

`layout.py` names its files. safetensors holds plain arrays (no code is run on loading) and is checked for size
and dtype. Under a strategy every worker holds identical values, so rank 0's copy is the checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf

from textscanner.checkpoint_files import CONFIG_NAME, NO_VOCABULARY, STATE_NAME, TRAINING_NAME, WEIGHTS_NAME
from textscanner.config import Config
from textscanner.inference.reader import Reader
from textscanner.model import build_without_pretrained
from textscanner.model.heads import CLASS_LOGITS
from textscanner.training.step import TrainingState


@dataclasses.dataclass(frozen=True)
class CheckpointMeta:
    """What stands beside the arrays.

    Attributes:
      step: training steps done; the data's plan is entered there.
      threshold: of the decoder, calibrated on validation words.
      metrics: of the last validation before saving.
    """

    step: int
    threshold: float
    metrics: dict[str, float]


def save(folder: str | pathlib.Path, state: TrainingState, saved: CheckpointMeta) -> None:
    """Writes the checkpoint of a training state into an existing or new folder. `state.ema_model` must be fresh."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / WEIGHTS_NAME, _model_arrays(state.ema_model))
    _write(folder / TRAINING_NAME, _training_arrays(state))
    (folder / CONFIG_NAME).write_text(json.dumps(state.config.to_dict(), indent=2))
    record = dataclasses.asdict(saved) | {"versions": {"tensorflow": tf.__version__, "keras": keras.__version__}}
    (folder / STATE_NAME).write_text(json.dumps(record, indent=2))


def load(path: str | pathlib.Path, vocabulary: str = NO_VOCABULARY) -> Reader:
    """The reader of a checkpoint folder; needs neither Ray nor a cluster. `vocabulary`: see `load_vocabulary`.

    Raises:
      ValueError: the folder is no checkpoint, its files do not belong together, or there is no such vocabulary.
    """
    folder = pathlib.Path(path)
    saved, config = read_meta(folder), read_config(folder)
    model = build_without_pretrained(config)
    _assign(_named(model.weights), _read(folder / WEIGHTS_NAME), folder / WEIGHTS_NAME)
    return Reader(config, model, saved.step, saved.metrics, saved.threshold, vocabulary)


def restore(folder: str | pathlib.Path, state: TrainingState) -> CheckpointMeta:
    """Puts a checkpoint into a training state: weights, optimizer, step. Every worker calls it.

    Raises:
      ValueError: as `load`, or the checkpoint is of another network.
    """
    folder = pathlib.Path(folder)
    saved = read_meta(folder)
    _assign(_training_variables(state), _read(folder / TRAINING_NAME), folder / TRAINING_NAME)
    state.sync_ema()
    if state.step != saved.step:
        raise ValueError(f"{folder}: the optimizer stands at step {state.step}, {STATE_NAME} says {saved.step}")
    return saved


def initialize(path: str | pathlib.Path, state: TrainingState) -> list[str]:
    """Starts a new run with the weights of a checkpoint. What does not fit keeps its random weights.

    Returns:
      the layers that do not fit: of a head whose charset or longest word differs, or of another network.

    Raises:
      ValueError: the checkpoint cannot be read, or most of it does not fit.
    """
    arrays = _read(pathlib.Path(path) / WEIGHTS_NAME)
    same_characters = read_config(pathlib.Path(path)).charset.characters == state.config.charset.characters
    apart: list[str] = []
    for name, variable in _named(state.model.weights).items():
        means_the_same = same_characters or not name.startswith(f"{CLASS_LOGITS}/")
        if means_the_same and name in arrays and arrays[name].shape == tuple(variable.shape):
            variable.assign(arrays[name])
        else:
            apart.append(name)
    if len(apart) > len(state.model.weights) / 2:
        raise ValueError(
            f"train.init is {path}: {len(apart)} of {len(state.model.weights)} weights do not fit this network; "
            "it is of another preset; --init none begins with random ones"
        )
    state.sync_ema()
    return sorted({name.rpartition("/")[0] for name in apart})


def export_weights(path: str | pathlib.Path, out: str | pathlib.Path) -> None:
    """Copies a checkpoint as the package ships it: weights as float16, no training state, no places of data."""
    source, target = pathlib.Path(path), pathlib.Path(out)
    target.mkdir(parents=True, exist_ok=True)
    arrays = _read(source / WEIGHTS_NAME)
    _write(target / WEIGHTS_NAME, {name: a.astype(np.float16) for name, a in arrays.items()})
    config = read_config(source)
    data = dataclasses.replace(config.data, train=(), val=(), weights=())
    bare = dataclasses.replace(config, data=data, train=dataclasses.replace(config.train, init=""))
    (target / CONFIG_NAME).write_text(json.dumps(bare.to_dict(), indent=2))
    (target / STATE_NAME).write_bytes((source / STATE_NAME).read_bytes())


def read_meta(folder: pathlib.Path) -> CheckpointMeta:
    """`state.json` of a checkpoint.

    Raises:
      ValueError: there is none, or it cannot be read.
    """
    record = _read_json(folder, STATE_NAME)
    return CheckpointMeta(int(record["step"]), float(record["threshold"]), dict(record["metrics"]))


def read_config(folder: pathlib.Path) -> Config:
    """The config of a checkpoint.

    Raises:
      ValueError: there is none, or it is not valid.
    """
    return Config.from_dict(_read_json(folder, CONFIG_NAME))


def _read_json(folder: pathlib.Path, name: str) -> dict[str, Any]:
    try:
        return json.loads((folder / name).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} is not a checkpoint ({name}: {error.__class__.__name__}); "
            f"wanted a folder with {CONFIG_NAME}, {STATE_NAME} and {WEIGHTS_NAME}"
        ) from None


def _named(variables: list) -> dict[str, Any]:
    named = {v.path: v for v in variables}
    assert len(named) == len(variables), "layer names repeat"
    return named


def _model_arrays(model: keras.Model) -> dict[str, np.ndarray]:
    return {path: v.numpy() for path, v in _named(model.weights).items()}


def _training_variables(state: TrainingState) -> dict[str, Any]:
    """Model and optimizer variables by name; the optimizer's are numbered, Keras does not promise unique paths."""
    named = {f"model/{path}": v for path, v in _named(state.model.weights).items()}
    kept = [v for v in state.optimizer.variables if v is not state.optimizer._learning_rate]
    return named | {f"optimizer/{i:04d}/{v.path}": v for i, v in enumerate(kept)}


def _training_arrays(state: TrainingState) -> dict[str, np.ndarray]:
    return {name: np.asarray(v.numpy()) for name, v in _training_variables(state).items()}


def _write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    # safetensors wants arrays of its own memory order; 0-d counters stay 0-d.
    safetensors.numpy.save_file({name: np.array(a, order="C") for name, a in arrays.items()}, path)


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} cannot be read: {error}; the checkpoint is broken, take another") from None


def _assign(variables: Mapping[str, Any], arrays: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    missing, extra = sorted(variables.keys() - arrays.keys()), sorted(arrays.keys() - variables.keys())
    if missing or extra:
        raise ValueError(
            f"{path} holds another network or optimizer: missing {missing[:3]}, not wanted {extra[:3]} "
            f"({len(missing)} and {len(extra)} in all)"
        )
    for name, variable in variables.items():
        if tuple(variable.shape) != arrays[name].shape:
            raise ValueError(f"{path}: {name} has shape {arrays[name].shape}, wanted {tuple(variable.shape)}")
        variable.assign(arrays[name])
