"""The few layers that backbones and heads share.

Group norm is our own twelve lines: Keras' layer reshapes through five dimensions and is slower on a CPU than the
convolution before it.
"""

from __future__ import annotations

import keras
from keras import ops

from textscanner.config import ModelConfig

GROUP_CHANNELS = 8


def normalization(model: ModelConfig, name: str) -> keras.layers.Layer:
    """The config's normalisation layer. Batch norm is synchronised over replicas and workers."""
    if model.normalization == "batch":
        return keras.layers.BatchNormalization(momentum=0.97, epsilon=1e-5, synchronized=True, name=name)
    return ChannelGroupNorm(name=name)


class ChannelGroupNorm(keras.layers.Layer):
    """Group normalisation (Wu & He, 2018) of [B, h, w, c] over groups of GROUP_CHANNELS channels, in float32."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """One scale and one offset per channel."""
        channels = input_shape[-1]
        self.scale = self.add_weight(name="scale", shape=(channels,), initializer="ones")
        self.offset = self.add_weight(name="offset", shape=(channels,), initializer="zeros")

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Normalises [B, h, w, c]."""
        channels = x.shape[-1]
        groups = max(1, channels // GROUP_CHANNELS)
        wide = ops.cast(x, "float32")
        mean = ops.mean(wide, axis=(1, 2))
        square = ops.mean(ops.square(wide), axis=(1, 2))
        mean, square = (
            ops.repeat(ops.mean(ops.reshape(s, (-1, groups, channels // groups)), -1), channels // groups, -1)
            for s in (mean, square)
        )
        gain = ops.rsqrt(ops.maximum(square - ops.square(mean), 0.0) + 1e-5) * ops.cast(self.scale, "float32")
        shift = ops.cast(self.offset, "float32") - mean * gain
        gain, shift = (ops.cast(v, x.dtype)[:, None, None, :] for v in (gain, shift))
        return x * gain + shift


def conv(
    x: keras.KerasTensor,
    channels: int,
    name: str,
    size: int = 3,
    strides: tuple[int, int] = (1, 1),
    bias: bool = False,
) -> keras.KerasTensor:
    """A `same` convolution, He-normal."""
    return keras.layers.Conv2D(
        channels,
        size,
        strides=strides,
        padding="same",
        use_bias=bias,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def conv_norm(
    x: keras.KerasTensor,
    channels: int,
    model: ModelConfig,
    name: str,
    size: int = 3,
    strides: tuple[int, int] = (1, 1),
    relu: bool = True,
) -> keras.KerasTensor:
    """Convolution, normalisation and, unless switched off, ReLU."""
    x = normalization(model, f"{name}_norm")(conv(x, channels, f"{name}_conv", size, strides))
    return keras.layers.ReLU(name=f"{name}_relu")(x) if relu else x


def upsample(x: keras.KerasTensor, factor: tuple[int, int], name: str) -> keras.KerasTensor:
    """Bilinear enlargement by whole factors (rows, columns); factor (1, 1) is the identity."""
    if factor == (1, 1):
        return x
    return keras.layers.UpSampling2D(factor, interpolation="bilinear", name=name)(x)
