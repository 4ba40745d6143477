"""Configuration of a model and its training: frozen, validated dataclasses.

A `Config` decides what is computed. It is the identity of a run: a run is only resumed with an equal config. How a run
is executed (workers, GPUs, caches) is configured in `cluster/config.py`.

Values are checked when a config is built; an error gives the key, its value, the rule and the remedy. Derived values
(map sizes) are properties and never stored. Variants are made with `dataclasses.replace` or `override`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import pydantic
from pydantic.dataclasses import dataclass

from textscanner.charset import ALPHANUMERIC, Charset
from textscanner.config_parsing import assign, parse
from textscanner.errors import UserError

GROUP_CHANNELS = 8  # of group norm
ATTENTION_HEAD_CHANNELS = 32
RESNET50_STRIDES = (32, 32)  # input pixels per cell of its coarsest feature map, (y, x)
STRICT = pydantic.ConfigDict(extra="forbid")
WORD_ACCURACY = "word_accuracy"  # last part of the names of word accuracies; the first of the scores of `WordCounts`
BEST_METRIC = f"val/{WORD_ACCURACY}"  # word accuracy over all validation sets


def require(condition: bool, key: str, value: object, rule: str) -> None:
    """Checks a rule of a config.

    Raises:
      UserError: the condition is false.
    """
    if not condition:
        raise UserError(f"{key} is {value!r}: {rule}")


def num_groups(channels: int) -> int:
    """Groups of a group norm over `channels` channels: of GROUP_CHANNELS or a few more; one if there are fewer."""
    return max(1, channels // GROUP_CHANNELS)


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """Architecture of the network. `H W` is the input in pixels, `h w` the maps in cells, `N` the longest word."""

    backbone: Literal["resnet50", "residual"] = "resnet50"
    """`resnet50` is the paper's backbone, `residual` a narrow one for CPUs."""
    height_px: int = 64
    """Input height H."""
    width_px: int = 256
    """Input width W."""
    resize: Literal["stretch", "pad"] = "stretch"
    """`stretch` resizes to H x W (paper); `pad` keeps the aspect ratio up to `max_stretch` and pads on the right."""
    max_stretch: float = 1.0
    """With `pad`: how much wider than its natural aspect ratio a word may become; 1.0 keeps the ratio."""
    map_stride_y: int = 2
    """Input pixels per map cell, vertically."""
    map_stride_x: int = 2
    """Input pixels per map cell, horizontally."""
    stem_channels: int = 32
    """Channels of the stem, which halves both axes (`residual` only)."""
    stage_channels: tuple[int, ...] = ()
    """Channels of each stage of the `residual` backbone."""
    stage_blocks: tuple[int, ...] = ()
    """Residual blocks in each stage."""
    stage_strides: tuple[tuple[int, int], ...] = ()
    """Stride (y, x) of each stage."""
    attention_blocks: int = 0
    """Transformer blocks over all cells of the last stage (`residual` only)."""
    feature_channels: int = 128
    """Channels F of the fused feature map."""
    head_channels: int = 128
    """Channels of the class and localization heads."""
    order_channels: tuple[int, int, int] = (16, 32, 64)
    """Channels of the order head's three stride-2 levels (paper, Fig. 3)."""
    gru_units: int = 256
    """Units of the order head's GRU; 0 removes it."""
    gru_direction: Literal["forward", "both"] = "forward"
    """`both` makes the GRU bidirectional."""
    max_label_length: int = 30
    """N, the longest word in characters; 1 to 200."""
    language_blocks: int = 0
    """Transformer blocks of the language module over a word's positions (`model/language.py`); 0 removes it. It
    learns where `losses.word_weight` is positive."""
    language_channels: int = 96
    """Channels of the language module; a multiple of 32."""
    activation: Literal["relu", "silu"] = "relu"
    """Activation after every convolution except those of ResNet-50, which uses ReLU."""
    normalization: Literal["batch", "group"] = "batch"
    """Synchronized batch norm, or group norm, which gives the same result for any split of a batch over workers."""
    pretrained_backbone: str = "none"
    """ImageNet weights for `resnet50`: `none`, `download` (Keras), or the path of a Keras ResNet-50 weights file."""

    def __post_init__(self) -> None:
        for name in ("map_stride_y", "map_stride_x", "stem_channels", "feature_channels", "head_channels"):
            require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "must be at least 1")
        for name in ("gru_units", "attention_blocks", "language_blocks"):
            require(getattr(self, name) >= 0, f"model.{name}", getattr(self, name), "must not be negative; 0 is none")
        for name in ("stage_channels", "stage_blocks", "order_channels"):
            values = getattr(self, name)
            require(all(value >= 1 for value in values), f"model.{name}", values, "each must be at least 1")
        strides = self.stage_strides
        require(min((s for pair in strides for s in pair), default=1) >= 1, "model.stage_strides", strides, "each >= 1")
        for axis, size, stride in (
            ("height_px", self.height_px, self.map_stride_y),
            ("width_px", self.width_px, self.map_stride_x),
        ):
            require(size > 0 and size % stride == 0, f"model.{axis}", size, f"must be a multiple of {stride}")
        # The order head halves the maps three times (rows and columns) and upsamples them again.
        require(self.map_width % 8 == 0, "model.width_px", self.width_px, "the map width must be a multiple of 8")
        require(self.map_height % 8 == 0, "model.height_px", self.height_px, "the map height must be a multiple of 8")
        require(1 <= self.max_label_length <= 200, "model.max_label_length", self.max_label_length, "must be in 1..200")
        require(self.max_stretch >= 1, "model.max_stretch", self.max_stretch, "must be at least 1")
        channels, rule = self.language_channels, f"must be a multiple of {ATTENTION_HEAD_CHANNELS}"
        require(channels >= 1 and channels % ATTENTION_HEAD_CHANNELS == 0, "model.language_channels", channels, rule)
        if self.backbone == "residual":
            lengths = {len(self.stage_channels), len(self.stage_blocks), len(self.stage_strides)}
            require(
                len(lengths) == 1 and len(self.stage_channels) >= 2,
                "model.stage_channels, stage_blocks, stage_strides",
                (self.stage_channels, self.stage_blocks, self.stage_strides),
                "must have the same length, at least 2",
            )
            require(
                any(s == (self.map_stride_y, self.map_stride_x) for s in self.stage_input_strides),
                "model.map_stride_y, map_stride_x",
                (self.map_stride_y, self.map_stride_x),
                f"must be the stride of a stage: one of {self.stage_input_strides}",
            )
        else:
            require(
                (self.map_stride_y, self.map_stride_x) == (2, 2),
                "model.map_stride_y, map_stride_x",
                (self.map_stride_y, self.map_stride_x),
                "must be (2, 2) with the resnet50 backbone",
            )
        self._check_coarsest_stride()
        self._check_attention_channels()
        if self.normalization == "group":
            self._check_group_channels()

    def _check_coarsest_stride(self) -> None:
        """The pyramid upsamples the coarsest level by whole factors: it must not have been rounded up."""
        coarsest = self.stage_input_strides[-1] if self.backbone == "residual" else RESNET50_STRIDES
        for name, stride in zip(("height_px", "width_px"), coarsest, strict=True):
            size = getattr(self, name)
            rule = f"must be a multiple of {stride}, the stride of the coarsest feature map"
            require(size % stride == 0, f"model.{name}", size, rule)

    def _check_attention_channels(self) -> None:
        if self.backbone == "residual" and self.attention_blocks:
            require(
                self.stage_channels[-1] % ATTENTION_HEAD_CHANNELS == 0,
                "model.stage_channels",
                self.stage_channels,
                f"attention needs a multiple of {ATTENTION_HEAD_CHANNELS} channels in the last stage; "
                "change it, or set model.attention_blocks=0",
            )

    def _check_group_channels(self) -> None:
        """Every layer that a group norm follows must divide into equal groups; ResNet-50 has batch norms of its own."""
        of_backbone = ("stem_channels", "stage_channels") if self.backbone == "residual" else ()
        for name in (*of_backbone, "feature_channels", "head_channels", "order_channels"):
            value = getattr(self, name)
            for channels in value if isinstance(value, tuple) else (value,):
                groups = num_groups(channels)
                require(
                    channels % groups == 0,
                    f"model.{name}",
                    value,
                    f"group norm cannot divide {channels} channels into {groups} equal groups; "
                    f"give multiples of {GROUP_CHANNELS}, or model.normalization=batch",
                )

    @property
    def map_height(self) -> int:
        """h, in map cells."""
        return self.height_px // self.map_stride_y

    @property
    def map_width(self) -> int:
        """w, in map cells."""
        return self.width_px // self.map_stride_x

    @property
    def stage_input_strides(self) -> tuple[tuple[int, int], ...]:
        """Input pixels per cell of each stage's output, (y, x)."""
        strides, y, x = [], 2, 2
        for sy, sx in self.stage_strides:
            y, x = y * sy, x * sx
            strides.append((y, x))
        return tuple(strides)


@dataclass(frozen=True, config=STRICT)
class TargetConfig:
    """How character quads become target maps (`training/targets.py`)."""

    sigma: Literal["stride", "box"] = "stride"
    """`stride`: Gaussians with a standard deviation of 2 px (paper's code); `box`: proportional to the character."""
    sigma_box: float = 0.25
    """With `box`: standard deviation as a fraction of the character's box, per axis; 0 to 1."""
    sigma_min_cells: float = 0.5
    """With `box`: lower bound, in map cells."""
    sigma_max_px: float = 8.0
    """With `box`: upper bound, in input pixels."""
    order_threshold: float = 0.2
    """zeta: cells whose localization target exceeds it carry an order label; 0 to 1."""
    class_region: Literal["shrunk", "gaussian"] = "shrunk"
    """Cells that carry a class label: the paper's shrunk box, or every cell above `class_threshold`."""
    class_threshold: float = 0.4
    """With `gaussian`: localization target above which a cell carries a class label; 0 to 1."""
    shrink_ratio: float = 0.25
    """With `shrunk`: r of the Vatti offset; 0 to 1."""

    def __post_init__(self) -> None:
        for name in ("order_threshold", "class_threshold", "shrink_ratio", "sigma_box"):
            value = getattr(self, name)
            require(0 < value < 1, f"targets.{name}", value, "must lie between 0 and 1")


@dataclass(frozen=True, config=STRICT)
class LossConfig:
    """Weights of the loss terms (`training/losses.py`)."""

    class_weight: float = 1.0
    """Weight of the class map's cross entropy."""
    order_weight: float = 10.0
    """Weight of the order map's cross entropy."""
    localization_weight: float = 10.0
    """Weight of the localization loss."""
    localization: Literal["smooth_l1", "squared"] = "smooth_l1"
    """Smooth L1 balanced between foreground and background, or squared error divided by the target's mass."""
    mutual_weight: float = 0.0
    """Weight of mutual supervision (`training/mutual_supervision.py`), which needs no character boxes; 0 is off."""
    word_weight: float = 0.0
    """Weight of the decoded word's loss (`training/word_loss.py`), which needs no character boxes; 0 is off."""
    word_supervision_start_step: int = 0
    """Step at which mutual supervision and the word loss start."""
    word_supervision_ramp_steps: int = 500
    """Steps over which both rise linearly to their weights."""
    word_supervision_rows: Literal["all", "without_boxes"] = "all"
    """Apply both to all rows (paper), or only to rows without character boxes."""

    def __post_init__(self) -> None:
        weights = ("class_weight", "order_weight", "localization_weight", "mutual_weight", "word_weight")
        for field in (*weights, "word_supervision_start_step", "word_supervision_ramp_steps"):
            require(getattr(self, field) >= 0, f"losses.{field}", getattr(self, field), "must not be negative")

    @property
    def learns_from_words(self) -> bool:
        """Whether rows without character boxes contribute to the loss."""
        return self.mutual_weight > 0 or self.word_weight > 0


@dataclass(frozen=True, config=STRICT)
class OptimizerConfig:
    """AdamW with a warmup-stable-decay schedule."""

    learning_rate: float = 1e-3
    """Peak learning rate, after warm-up."""
    weight_decay: float = 0.02
    """Decoupled weight decay of kernels: each step multiplies them by 1 - learning rate * this."""
    warmup_steps: int = 500
    """Steps of linear warm-up."""
    decay_fraction: float = 1.0
    """Last fraction of the steps over which the rate decays: 1 decays from the end of the warm-up, 0 never (a run that
    another one continues); 0 to 1."""
    final_lr_fraction: float = 0.01
    """Learning rate at the end of the decay, as a fraction of the peak; 0 to 1."""
    clip_norm: float = 5.0
    """Global norm to which the all-reduced gradient is clipped; 0 turns clipping off."""
    ema_momentum: float = 0.0
    """Momentum of the weights' moving average, which is validated and saved; smaller in the first steps, so that the
    average soon forgets the initial weights. 0 turns it off."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Compute dtype; weights, logits and losses are always float32."""
    gradient_accumulation_steps: int = 1
    """Micro-batches per step: less memory, the same global batch."""

    def __post_init__(self) -> None:
        require(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "must not be negative")
        require(self.learning_rate > 0, "optimizer.learning_rate", self.learning_rate, "must be positive")
        require(self.warmup_steps >= 0, "optimizer.warmup_steps", self.warmup_steps, "must not be negative")
        require(0 <= self.ema_momentum < 1, "optimizer.ema_momentum", self.ema_momentum, "must lie in [0, 1)")
        for name in ("decay_fraction", "final_lr_fraction"):
            require(0 <= getattr(self, name) <= 1, f"optimizer.{name}", getattr(self, name), "must be in 0..1")
        require(
            self.gradient_accumulation_steps >= 1,
            "optimizer.gradient_accumulation_steps",
            self.gradient_accumulation_steps,
            "must be at least 1",
        )
        require(self.clip_norm >= 0, "optimizer.clip_norm", self.clip_norm, "must not be negative; 0 turns it off")


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """Which rows are used for training, and in which order."""

    train: tuple[str, ...] = ()
    """URIs of prepared training data sets."""
    val: tuple[str, ...] = ()
    """URIs of prepared validation data sets."""
    weights: tuple[float, ...] = ()
    """Sampling weight of each training set, in any unit; if empty, sets are sampled in proportion to their rows."""
    num_streams: int = 8
    """Streams that a global batch is drawn from. The rows of a batch depend on it, not on the number of workers."""
    augment: bool = True
    """Random colour, blur, noise and geometry on training images."""
    augment_strength: float = 1.0
    """Scales the range of every augmentation; below 1 also its probability. 0 to 2."""

    def __post_init__(self) -> None:
        if self.weights:
            require(
                len(self.weights) == len(self.train) and all(w > 0 for w in self.weights),
                "data.weights",
                self.weights,
                f"must be one positive number per training set ({len(self.train)} given)",
            )
        require(self.num_streams >= 1, "data.num_streams", self.num_streams, "must be at least 1")
        require(0 <= self.augment_strength <= 2, "data.augment_strength", self.augment_strength, "must be in 0..2")


@dataclass(frozen=True, config=STRICT)
class TrainConfig:
    """Length of a run and its cadences, in steps. The last step logs, validates, saves and draws in any case."""

    num_steps: int = 10_000
    """Training steps."""
    global_batch_size: int = 64
    """Images per step, over all workers and replicas."""
    seed: int = 0
    """Seed of initial weights, data order and augmentation."""
    log_every_steps: int = 20
    """Interval between lines of metrics."""
    validate_every_steps: int = 1_000
    """Interval between validations."""
    checkpoint_every_steps: int = 1_000
    """Interval between checkpoints."""
    image_every_steps: int = 1_000
    """Interval between pictures of validation words."""
    best_metric: str = BEST_METRIC
    """Validation metric that selects the best checkpoint; higher is better."""
    init: str = ""
    """Checkpoint (URI, or the name of bundled weights) whose weights a new run starts from; empty: random weights."""

    def __post_init__(self) -> None:
        cadences = ("log_every_steps", "validate_every_steps", "checkpoint_every_steps", "image_every_steps")
        for name in ("num_steps", "global_batch_size", *cadences):
            require(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "must be at least 1")


@dataclass(frozen=True, config=STRICT)
class Config:
    """A model and its training."""

    preset: str
    """Name of the preset that the config was derived from."""
    charset: Charset = ALPHANUMERIC
    """Characters that are read."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    """Architecture."""
    targets: TargetConfig = dataclasses.field(default_factory=TargetConfig)
    """Target maps."""
    losses: LossConfig = dataclasses.field(default_factory=LossConfig)
    """Loss terms."""
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    """Optimizer and learning-rate schedule."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    """Data sets."""
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    """Length and cadences."""

    def __post_init__(self) -> None:
        batch, streams = self.train.global_batch_size, self.data.num_streams
        require(
            batch % streams == 0,
            "train.global_batch_size",
            batch,
            f"must be a multiple of data.num_streams ({streams})",
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-compatible dict that `from_dict` reads."""
        values: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return values

    @staticmethod
    def from_dict(values: Mapping[str, Any], path: str = "") -> Config:
        """The config in such a dict.

        Args:
          path: of the file that holds it; errors begin with it.

        Raises:
          UserError: naming each value that is unknown or breaks a rule.
        """
        try:
            return parse(_ADAPTER, values)
        except UserError as error:
            raise (UserError(f"{path}: {error}") if path else error) from None


_ADAPTER = pydantic.TypeAdapter(Config)


def override(config: Config, assignments: Iterable[str]) -> Config:
    """The config with `section.key=value` assignments applied; lists and tuples are given as JSON.

    Keys of the runtime are not known here: the command line uses `override` of `cluster/config.py`.

    Raises:
      UserError: an assignment is not of that form, names no key, or its value breaks a rule.
    """
    values = config.to_dict()
    for assignment in assignments:
        assign(values, assignment)
    return Config.from_dict(values)
