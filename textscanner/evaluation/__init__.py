"""Metrics, calibration, error analysis and pictures."""
