"""Tests of textscanner.inference."""
