"""Fixtures that several tiers share."""

import pytest

import cluster  # noqa: F401 (quiet, before TensorFlow and Ray are imported)
from tests.factories import rendered_records
from textscanner.schema import WordRecord


@pytest.fixture(scope="session")
def words() -> list[WordRecord]:
    """64 easily read words with quads."""
    return rendered_records(64)


@pytest.fixture(scope="session")
def ray_session():
    """One local Ray cluster for the tests that need one."""
    from cluster.session import local_session

    with local_session(num_cpus=4):
        yield
