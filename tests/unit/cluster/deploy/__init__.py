"""Unit tests of `cluster/deploy`."""
