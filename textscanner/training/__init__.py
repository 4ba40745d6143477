"""Training: target maps, losses, the training step and the loop."""
