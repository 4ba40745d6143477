"""Unit tests of `cluster/tune`."""
