"""Configs are validated when built."""

import dataclasses

import pytest

from textscanner.config import OptimizerConfig, difference, override
from textscanner.presets import preset


def test_overrides_are_applied_and_listed_as_differences():
    config = override(preset("tiny"), ["data.augment=false", "optimizer.learning_rate=0.125", 'data.train=["a", "b"]'])
    assert config.data.augment is False
    assert config.optimizer.learning_rate == 0.125
    assert config.data.train == ("a", "b")
    assert "optimizer.learning_rate: 0.005 -> 0.125" in difference(preset("tiny").to_dict(), config.to_dict())


def test_dataclasses_replace_validates():
    with pytest.raises(ValueError, match=r"optimizer\.learning_rate is -1"):
        OptimizerConfig(learning_rate=-1)
    with pytest.raises(ValueError, match="weights"):
        dataclasses.replace(preset("tiny").data, weights=(1.0,))
