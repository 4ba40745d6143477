"""File names of a checkpoint folder, and the bundled pretrained weights. Imports neither TensorFlow nor Ray."""

from __future__ import annotations

import pathlib

CONFIG_NAME = "config.json"  # the whole config, charset included
STATE_NAME = "state.json"  # step, threshold, metrics, versions; written last
WEIGHTS_NAME = "weights.safetensors"  # the validated weights (their moving average if the run keeps one)
TRAINING_NAME = "training.safetensors"  # live weights and optimizer variables

# Added on upload and kept by `pull`: step, metrics, and name, size and SHA-256 of each file. It is uploaded last; in
# storage, a folder without it is incomplete.
CHECKPOINT_MANIFEST_NAME = "checkpoint_manifest.json"

ONNX_NAME = "model.onnx"  # beside bundled weights: the exported network, for reading only

DEFAULT_WEIGHTS = "small"  # what the commands read with by default
DEFAULT_VOCABULARY = "en"  # word prior of the commands; textscanner.load applies none
NO_VOCABULARY = "none"
WEIGHTS_FOLDER = pathlib.Path(__file__).parent / "weights"


def shipped_weights() -> dict[str, str]:
    """Folders of the bundled weights by name. They have no training state: a run can start from them, not resume."""
    return {path.parent.name: str(path.parent) for path in sorted(WEIGHTS_FOLDER.glob(f"*/{STATE_NAME}"))}
