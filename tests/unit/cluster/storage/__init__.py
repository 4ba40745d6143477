"""Tests of cluster.storage."""
