"""Tests of textscanner.evaluation."""
