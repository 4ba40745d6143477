"""Configs are validated when built."""

import dataclasses

import pytest

from textscanner.config import Config, OptimizerConfig, override
from textscanner.config_parsing import difference
from textscanner.errors import UserError
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


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        *((name, 0, "must be at least 1") for name in ("stem_channels", "feature_channels", "head_channels")),
        *((name, -1, "must not be negative; 0 is none") for name in ("gru_units", "attention_blocks")),
        *((name, (8, 0, 8), "each must be at least 1") for name in ("stage_channels", "stage_blocks")),
        ("order_channels", (16, 32, 0), "each must be at least 1"),
        ("stage_strides", ((2, 0),), "each >= 1"),
    ],
)
def test_sizes_of_the_network_are_validated(name, value, rule):
    values = preset("tiny").to_dict()
    values["model"][name] = value
    with pytest.raises(UserError) as raised:
        Config.from_dict(values)
    assert str(raised.value) == f"model.{name} is {value!r}: {rule}"
