"""The files of a checkpoint folder, and the weights that the package brings. Loads neither TensorFlow nor Ray."""

from __future__ import annotations

import pathlib

CONFIG_NAME = "config.json"  # the whole config, charset included
STATE_NAME = "state.json"  # step, threshold, metrics, data position, versions; written last
WEIGHTS_NAME = "weights.safetensors"  # the weights that were validated (the moving average if the run keeps one)
TRAINING_NAME = "training.safetensors"  # the live weights, the optimizer's variables

# In storage only: names, sizes and SHA-256 of the files above. It is uploaded last; a folder without it is incomplete.
CHECKPOINT_MANIFEST_NAME = "checkpoint_manifest.json"

ONNX_NAME = "model.onnx"  # beside weights that ship: the exported network, for reading alone

DEFAULT_WEIGHTS = "small"  # what reads if nothing else is asked for
DEFAULT_VOCABULARY = "en"  # word prior of the commands; textscanner.load applies none
NO_VOCABULARY = "none"
WEIGHTS_FOLDER = pathlib.Path(__file__).parent / "weights"


def shipped_weights() -> dict[str, str]:
    """Checkpoint folders inside the package by name; they hold no training state."""
    return {path.parent.name: str(path.parent) for path in sorted(WEIGHTS_FOLDER.glob(f"*/{STATE_NAME}"))}
