"""Tests. Tiers: unit (one process), replica (TensorFlow processes), cluster (a local Ray cluster)."""
