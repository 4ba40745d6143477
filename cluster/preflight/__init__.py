"""Checks of a cluster before a long job: probes measure on every node, pure functions judge the measurements."""
