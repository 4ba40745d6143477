"""Scoring checkpoints and other recognisers on data sets."""
