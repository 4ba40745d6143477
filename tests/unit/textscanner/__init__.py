"""Tests of textscanner."""
