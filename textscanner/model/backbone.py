"""Backbones: images [B, H, W, 3] in 0..255 -> a feature map [B, h, w, F] at the configured map stride.

Both are feature pyramids: lateral 1x1 convolutions to F channels, then from the coarsest level to the finest: upsample,
add, smooth (3x3 convolution, norm, activation). `resnet50` is the paper's backbone (section 3.1); which of its layers
are used is our choice. `residual` consists of narrow basic blocks, for CPUs.

Shapes: B batch, H W input pixels, h w map cells, F feature channels, c channels of a level.
"""

from __future__ import annotations

import pathlib

import keras

from textscanner.config import ModelConfig
from textscanner.errors import UserError
from textscanner.model.layers import activation, attend, conv, conv_norm, upsample

RESNET_TAPS = ("conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out")
# Keras' ResNet-50 was trained on BGR images with these means subtracted and no scaling ("caffe" preprocessing).
IMAGENET_MEAN_RGB = (123.68, 116.779, 103.939)

Levels = list[keras.KerasTensor]
"""Feature maps [B, h_i, w_i, c_i], from the finest to the coarsest."""


def features(image: keras.KerasTensor, model: ModelConfig) -> keras.KerasTensor:
    """The feature map [B, h, w, F] of RGB images [B, H, W, 3] in 0..255."""
    if model.backbone == "resnet50":
        levels, strides = _resnet50_levels(image, model)
    else:
        levels, strides = _residual_levels(image, model)
    map_stride = (model.map_stride_y, model.map_stride_x)
    # Several stages may have this stride: the last of them has seen the most context.
    finest = max(i for i, stride in enumerate(strides) if stride == map_stride)
    return _pyramid(levels[finest:], strides[finest:], model)


def _pyramid(levels: Levels, strides: list[tuple[int, int]], model: ModelConfig) -> keras.KerasTensor:
    """Fuses levels with input strides (y, x) into the finest one, [B, h, w, F]."""
    width = model.feature_channels
    x = conv(levels[-1], width, f"lateral{len(levels) - 1}", 1, bias=True)
    for i in range(len(levels) - 2, -1, -1):
        factor = (strides[i + 1][0] // strides[i][0], strides[i + 1][1] // strides[i][1])
        x = upsample(x, factor, f"pyramid{i}_up")
        x = keras.layers.Add(name=f"pyramid{i}_add")([x, conv(levels[i], width, f"lateral{i}", 1, bias=True)])
        x = conv_norm(x, width, model, f"pyramid{i}")
    return x


def _resnet50_levels(image: keras.KerasTensor, model: ModelConfig) -> tuple[Levels, list[tuple[int, int]]]:
    """Levels of ResNet-50 at strides 2, 4, 8, 16 and 32, and these strides."""
    shape = (model.height_px, model.width_px, 3)
    x = keras.layers.Rescaling(1.0, [-m for m in IMAGENET_MEAN_RGB], name="imagenet_mean")(image)
    x = _ReverseChannels(name="rgb_to_bgr")(x)
    net = _resnet50(shape, model.pretrained_backbone)
    taps = keras.Model(net.inputs, [net.get_layer(name).output for name in RESNET_TAPS], name="resnet50")
    return list(taps(x)), [(2 << i, 2 << i) for i in range(len(RESNET_TAPS))]


@keras.saving.register_keras_serializable("textscanner")
class _ReverseChannels(keras.layers.Layer):
    """RGB [B, H, W, 3] -> BGR."""

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return x[..., ::-1]


def _resnet50(shape: tuple[int, int, int], weights: str) -> keras.Model:
    """Keras' ResNet-50 with synchronized batch norms.

    Args:
      shape: H, W, 3.
      weights: `none`, `download`, or the path of a weights file.

    Raises:
      UserError: the weights cannot be downloaded or read, or do not fit.
    """
    plain = keras.applications.ResNet50(include_top=False, weights=None, input_shape=shape)
    net = keras.models.clone_model(plain, clone_function=_with_synchronized_norm)
    if weights == "none":
        return net
    try:
        if weights == "download":
            net.set_weights(keras.applications.ResNet50(include_top=False, input_shape=shape).get_weights())
            return net
        if not pathlib.Path(weights).is_file():
            raise OSError("no such file")
        net.load_weights(weights)
    except Exception as error:  # Keras and h5py raise many types for a bad file or a failed download
        raise UserError(
            f"model.pretrained_backbone is {weights!r}: {error}. Give 'none', the path of a Keras ResNet-50 "
            "weights file (resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5), or 'download' with internet access"
        ) from error
    return net


def _with_synchronized_norm(layer: keras.layers.Layer) -> keras.layers.Layer:
    config = layer.get_config()
    if isinstance(layer, keras.layers.BatchNormalization):
        config["synchronized"] = True
    return layer.__class__.from_config(config)


def _residual_levels(image: keras.KerasTensor, model: ModelConfig) -> tuple[Levels, list[tuple[int, int]]]:
    """Outputs of the configured stages, and their input strides (y, x)."""
    x = keras.layers.Rescaling(1 / 127.5, -1.0, name="to_unit_range")(image)
    x = conv_norm(x, model.stem_channels, model, "stem", strides=(2, 2))
    levels = []
    for i, (channels, blocks, strides) in enumerate(
        zip(model.stage_channels, model.stage_blocks, model.stage_strides, strict=True)
    ):
        for j in range(blocks):
            x = _block(x, channels, strides if j == 0 else (1, 1), model, f"stage{i}_block{j}")
        levels.append(x)
    # "context" starts the names of these layers' arrays in released checkpoints: it cannot be renamed.
    levels[-1] = attend(x, model.attention_blocks, "context")
    return levels, list(model.stage_input_strides)


def _block(
    x: keras.KerasTensor, channels: int, strides: tuple[int, int], model: ModelConfig, name: str
) -> keras.KerasTensor:
    """Basic residual block (He et al., 2016) [B, h, w, c] -> [B, h / stride y, w / stride x, channels]."""
    shortcut = x
    if strides != (1, 1) or x.shape[-1] != channels:
        shortcut = conv_norm(x, channels, model, f"{name}_shortcut", 1, strides, activated=False)
    y = conv_norm(x, channels, model, f"{name}_a", strides=strides)
    y = conv_norm(y, channels, model, f"{name}_b", activated=False)
    return activation(model, f"{name}_out")(keras.layers.Add(name=f"{name}_add")([y, shortcut]))
