"""Configs are validated when built."""

import dataclasses

import pytest

from textscanner.config import Config, OptimizerConfig, override
from textscanner.config_parsing import difference
from textscanner.errors import UserError
from textscanner.model import build_model
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


def small_with(assignments):
    return override(preset("small"), assignments)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stem_channels", "28"),
        ("stage_channels", "[28, 96, 144, 192]"),
        ("feature_channels", "28"),
        ("head_channels", "28"),
        ("order_channels", "[24, 28, 64]"),
    ],
)
def test_channels_that_group_norm_cannot_divide_are_refused(key, value):
    with pytest.raises(UserError) as raised:
        small_with([f"model.{key}={value}"])
    message = str(raised.value)
    assert message.startswith(f"model.{key} is ") and "28 channels" in message
    assert message.endswith("give multiples of 8, or model.normalization=batch")
    assert small_with([f"model.{key}={value}", "model.normalization=batch"]).model.normalization == "batch"


@pytest.mark.parametrize("channels", [7, 12, 24])
def test_channels_of_equal_groups_are_valid_and_the_network_is_built(channels):
    config = override(
        preset("tiny"),
        ["model.normalization=group", *(f"model.{k}={channels}" for k in ("stem_channels", "head_channels"))],
    )
    assert build_model(config).count_params() > 0


def test_channels_of_unused_layers_are_not_checked():
    """ResNet-50 has neither the stem nor the stages of the residual backbone."""
    config = override(preset("paper"), ["model.normalization=group", "model.stem_channels=28"])
    assert config.model.stem_channels == 28


@pytest.mark.parametrize("channels", [16, 48, 200])
def test_an_attention_width_that_is_no_multiple_of_a_heads_is_refused(channels):
    stages = f"model.stage_channels=[48, 96, 144, {channels}]"
    with pytest.raises(UserError) as raised:
        small_with([stages])
    assert str(raised.value) == (
        f"model.stage_channels is (48, 96, 144, {channels}): attention needs a multiple of 32 channels in the last "
        "stage; change it, or set model.attention_blocks=0"
    )
    assert small_with([stages, "model.attention_blocks=0"]).model.stage_channels[-1] == channels


@pytest.mark.parametrize(
    ("name", "assignments", "refused"),
    [
        ("paper", ["model.height_px=48"], "model.height_px is 48"),
        (
            "small",
            ["model.width_px=144", "model.stage_strides=[[2, 1], [1, 1], [2, 4], [2, 4]]"],
            "model.width_px is 144",
        ),
    ],
)
def test_an_image_size_that_the_coarsest_stride_does_not_divide_is_refused(name, assignments, refused):
    with pytest.raises(UserError) as raised:
        override(preset(name), assignments)
    assert str(raised.value) == f"{refused}: must be a multiple of 32, the stride of the coarsest feature map"
