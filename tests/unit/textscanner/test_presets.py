"""Presets."""

import pytest

from textscanner.config import Config
from textscanner.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_presets_round_trip_through_json(name):
    assert Config.from_dict(preset(name).to_dict()) == preset(name)
