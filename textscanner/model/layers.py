"""Layers that backbones and heads share.

Group norm is implemented here because Keras' layer reshapes through five dimensions and takes longer on a CPU than the
convolution before it.

Shapes: B batch, h w map cells, c channels, T tokens.
"""

from __future__ import annotations

import keras
from keras import ops

from textscanner.config import ATTENTION_HEAD_CHANNELS, ModelConfig, num_groups


def normalization(model: ModelConfig, name: str) -> keras.layers.Layer:
    """The configured normalization layer. Batch norm is synchronized over replicas and workers."""
    if model.normalization == "batch":
        return keras.layers.BatchNormalization(momentum=0.97, epsilon=1e-5, synchronized=True, name=name)
    return ChannelGroupNorm(name=name)


class ChannelGroupNorm(keras.layers.Layer):
    """Group normalization (Wu & He, 2018) of [B, h, w, c] over `num_groups` groups of channels, in float32."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1]
        self.scale = self.add_weight(name="scale", shape=(channels,), initializer="ones")
        self.offset = self.add_weight(name="offset", shape=(channels,), initializer="zeros")

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        channels = x.shape[-1]
        groups = num_groups(channels)
        grouped = (groups, channels // groups)
        values = ops.cast(x, "float32")
        # Mean of each channel over the map first, then over the channels of a group: [B, groups, 1].
        mean, mean_square = (
            ops.mean(ops.reshape(ops.mean(v, axis=(1, 2)), (-1, *grouped)), -1, keepdims=True)
            for v in (values, ops.square(values))
        )
        gain = ops.rsqrt(ops.maximum(mean_square - ops.square(mean), 0.0) + 1e-5)
        gain = gain * ops.reshape(ops.cast(self.scale, "float32"), grouped)  # [B, groups, c / groups]
        shift = ops.reshape(ops.cast(self.offset, "float32"), grouped) - mean * gain
        gain, shift = (ops.cast(ops.reshape(v, (-1, 1, 1, channels)), x.dtype) for v in (gain, shift))
        return x * gain + shift


def conv(
    x: keras.KerasTensor,
    channels: int,
    name: str,
    size: int = 3,
    strides: tuple[int, int] = (1, 1),
    bias: bool = False,
) -> keras.KerasTensor:
    """Convolution [B, h, w, c] -> [B, h / stride y, w / stride x, channels], `same` padding, He-normal weights."""
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
    activated: bool = True,
) -> keras.KerasTensor:
    """Convolution, normalization and, if `activated`, the activation."""
    x = normalization(model, f"{name}_norm")(conv(x, channels, f"{name}_conv", size, strides))
    return activation(model, f"{name}_{model.activation}")(x) if activated else x


def activation(model: ModelConfig, name: str) -> keras.layers.Layer:
    """The configured activation layer."""
    return keras.layers.Activation(model.activation, name=name)


def upsample(x: keras.KerasTensor, factor: tuple[int, int], name: str) -> keras.KerasTensor:
    """Bilinear upsampling of [B, h, w, c] by whole factors (y, x); factor (1, 1) is the identity."""
    if factor == (1, 1):
        return x
    return keras.layers.UpSampling2D(factor, interpolation="bilinear", name=name)(x)


@keras.saving.register_keras_serializable("textscanner")
class PositionEmbedding(keras.layers.Layer):
    """Adds a learned vector per token (a cell or a position), initially zero, to [B, T, c]."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.table = self.add_weight(name="table", shape=input_shape[1:], initializer="zeros")

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return x + ops.cast(self.table, x.dtype)


def attend(x: keras.KerasTensor, blocks: int, name: str) -> keras.KerasTensor:
    """Applies `blocks` transformer blocks over all cells of [B, h, w, c], with a learned position embedding."""
    if not blocks:
        return x
    _, rows, columns, channels = x.shape
    cells = keras.layers.Reshape((rows * columns, channels), name=f"{name}_cells")(x)
    cells = PositionEmbedding(name=f"{name}_positions")(cells)
    cells = transformer_blocks(cells, blocks, name)
    return keras.layers.Reshape((rows, columns, channels), name=f"{name}_map")(cells)


def transformer_blocks(
    tokens: keras.KerasTensor, blocks: int, name: str, key_bias: keras.KerasTensor | None = None
) -> keras.KerasTensor:
    """Applies transformer blocks (pre-norm; Xiong et al., 2020) to tokens [B, T, c].

    The output projections are initialized to zero, so a network to which blocks are added starts as the one without.

    Args:
      tokens: [B, T, c], c a multiple of ATTENTION_HEAD_CHANNELS.
      blocks: how many.
      name: starts the names of the layers.
      key_bias: [B, T], added to the similarity of every query with each key; None adds nothing.
    """
    channels = tokens.shape[-1]
    for i in range(blocks):
        y = keras.layers.LayerNormalization(epsilon=1e-5, name=f"{name}{i}_norm")(tokens)
        y = _attention(y, f"{name}{i}", key_bias)
        tokens = keras.layers.Add(name=f"{name}{i}_add")([tokens, y])
        y = keras.layers.LayerNormalization(epsilon=1e-5, name=f"{name}{i}_mix_norm")(tokens)
        y = keras.layers.Dense(2 * channels, name=f"{name}{i}_widen")(y)
        y = ops.gelu(y, approximate=True)  # tanh approximation: ONNX has no erfc, and LiteRT no erf
        y = keras.layers.Dense(channels, kernel_initializer="zeros", name=f"{name}{i}_narrow")(y)
        tokens = keras.layers.Add(name=f"{name}{i}_mix_add")([tokens, y])
    return tokens


def _attention(x: keras.KerasTensor, name: str, key_bias: keras.KerasTensor | None) -> keras.KerasTensor:
    """Multi-head self-attention over [B, T, c] from plain matrix products, which every export format supports."""
    length, channels = x.shape[1:]
    heads = channels // ATTENTION_HEAD_CHANNELS

    def split(part: str) -> keras.KerasTensor:
        y = keras.layers.Dense(channels, name=f"{name}_{part}")(x)
        y = keras.layers.Reshape((length, heads, ATTENTION_HEAD_CHANNELS), name=f"{name}_{part}_heads")(y)
        return keras.layers.Permute((2, 1, 3), name=f"{name}_{part}_first")(y)

    query, key, value = split("query"), split("key"), split("value")
    similarity = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) * ATTENTION_HEAD_CHANNELS**-0.5
    if key_bias is not None:
        similarity = similarity + ops.cast(key_bias, similarity.dtype)[:, None, None, :]
    weights = keras.layers.Softmax(name=f"{name}_weights")(similarity)
    y = keras.layers.Permute((2, 1, 3), name=f"{name}_last")(ops.matmul(weights, value))
    y = keras.layers.Reshape((length, channels), name=f"{name}_joined")(y)
    return keras.layers.Dense(channels, kernel_initializer="zeros", name=f"{name}_out")(y)
