"""The files of a checkpoint folder. Imports nothing: storage commands know them without loading TensorFlow."""

CONFIG_NAME = "config.json"  # the whole config, charset included
STATE_NAME = "state.json"  # step, threshold, metrics, data position, versions; written last
WEIGHTS_NAME = "weights.safetensors"  # the weights that were validated (the moving average if the run keeps one)
TRAINING_NAME = "training.safetensors"  # the live weights, the optimizer's variables
