"""Scoring checkpoints and other recognizers on data sets."""
