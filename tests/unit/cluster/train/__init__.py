"""Unit tests of `cluster/train`."""
