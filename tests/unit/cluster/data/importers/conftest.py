"""Words for the importers' tests."""

import pytest


@pytest.fixture
def seven_words(words):
    """An odd number, so that the last scene of three words has a single one."""
    return words[:7]
