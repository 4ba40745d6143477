"""Tests of textscanner.model."""
