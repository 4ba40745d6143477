"""Tests of textscanner.training."""
