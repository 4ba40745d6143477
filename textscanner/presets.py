"""Complete configs by name. A preset is a function; variants are derived from its value with `dataclasses.replace`.

`paper` follows the paper, `small` is for training on CPUs and for small devices, `tiny` is for tests.

Examples:
  >>> import dataclasses
  >>> from textscanner.presets import preset
  >>> config = preset("small")
  >>> longer = dataclasses.replace(config, train=dataclasses.replace(config.train, num_steps=20_000))
  >>> longer.model.height_px, longer.model.width_px, longer.train.num_steps
  (32, 128, 20000)
"""

from __future__ import annotations

from collections.abc import Callable

from textscanner.config import Config, DataConfig, LossConfig, ModelConfig, OptimizerConfig, TargetConfig, TrainConfig
from textscanner.errors import UserError


def paper() -> Config:
    """ResNet-50, 64x256, maps of stride 2, N = 30: 25.4 M parameters."""
    return Config(
        preset="paper",
        data=DataConfig(num_streams=16),
        train=TrainConfig(
            num_steps=100_000, global_batch_size=256, validate_every_steps=5_000, checkpoint_every_steps=1_000
        ),
    )


def small() -> Config:
    """A narrow residual network on 32x128 with maps of 8x64; docs/accuracy.md has the experiments behind it."""
    return Config(
        preset="small",
        model=ModelConfig(
            backbone="residual",
            height_px=32,
            width_px=128,
            resize="pad",
            max_stretch=1.5,
            map_stride_y=4,
            map_stride_x=2,
            stem_channels=32,
            stage_channels=(48, 96, 144, 192),
            stage_blocks=(1, 2, 2, 1),
            stage_strides=((2, 1), (1, 1), (2, 2), (2, 2)),
            attention_blocks=2,
            feature_channels=72,
            head_channels=72,
            order_channels=(24, 48, 64),
            gru_units=128,
            max_label_length=25,
            normalization="group",
        ),
        targets=TargetConfig(sigma="box", class_region="gaussian"),
        losses=LossConfig(order_weight=1.5, localization_weight=1.0, localization="squared"),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=500, ema_momentum=0.998),
        train=TrainConfig(num_steps=9_000, global_batch_size=32, log_every_steps=50),
    )


def tiny() -> Config:
    """The smallest network that can overfit a few words; for tests."""
    return Config(
        preset="tiny",
        model=ModelConfig(
            backbone="residual",
            height_px=32,
            width_px=64,
            map_stride_y=4,
            map_stride_x=2,
            stem_channels=8,
            stage_channels=(16, 24, 32),
            stage_blocks=(1, 1, 1),
            stage_strides=((2, 1), (2, 2), (2, 2)),
            feature_channels=24,
            head_channels=24,
            order_channels=(8, 12, 16),
            gru_units=16,
            max_label_length=8,
            normalization="batch",
        ),
        targets=TargetConfig(sigma="box", class_region="gaussian"),
        losses=LossConfig(order_weight=1.5, localization_weight=1.0, localization="squared"),
        optimizer=OptimizerConfig(learning_rate=5e-3, warmup_steps=10),
        data=DataConfig(num_streams=4),
        train=TrainConfig(
            num_steps=40,
            global_batch_size=8,
            log_every_steps=5,
            validate_every_steps=20,
            checkpoint_every_steps=20,
            image_every_steps=20,
        ),
    )


PRESETS: dict[str, Callable[[], Config]] = {"paper": paper, "small": small, "tiny": tiny}


def preset(name: str) -> Config:
    """The config of a preset.

    Args:
      name: `paper`, `small` or `tiny`.

    Raises:
      UserError: there is no such preset.
    """
    if name not in PRESETS:
        raise UserError(f"preset is {name!r}: must be one of {', '.join(PRESETS)}")
    return PRESETS[name]()
