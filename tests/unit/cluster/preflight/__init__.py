"""Unit tests of `cluster/preflight`."""
