"""Target maps, losses, the training step and the training loop."""
