"""Tests of textscanner.export."""
