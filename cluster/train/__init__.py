"""Distributed training runs with Ray Train."""
