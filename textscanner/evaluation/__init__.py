"""Evaluation: metrics, threshold calibration, error analysis, visualization, report."""
