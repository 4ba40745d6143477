"""What a run is: frozen, validated dataclasses, each value stated once.

A config is complete when it is built, and wrong values are refused there, with name, value, rule and remedy.
What follows from other values (map sizes, batch shares) is a property and never stored. Variants derive with
`dataclasses.replace` or, from a command line, with `override`. pydantic does the type checks and the parsing,
so `--set optimizer.clip_norm=false` is an error and `--set data.augment=false` is false.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import pydantic
from pydantic.dataclasses import dataclass

from textscanner.charset import ALPHANUMERIC, Charset

_STRICT = pydantic.ConfigDict(extra="forbid")


def _require(condition: bool, name: str, value: object, rule: str) -> None:
    if not condition:
        raise ValueError(f"{name} is {value!r}: {rule}")


@dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """The network's shape. `H W` is the input in pixels, `h w` the maps.

    Attributes:
      backbone: `resnet50` is the paper's; `residual` is a narrow network for CPUs.
      resize: `stretch` to H x W (the paper) or `pad`: keep the ratio up to `max_stretch`, fill the right side.
      max_stretch: with `pad`, how much wider than its natural ratio a word may be drawn, 1.0 for not at all.
      map_stride_y, map_stride_x: input pixels per map cell.
      stage_channels, stage_blocks, stage_strides: the residual backbone, one entry per stage, strides as (y, x);
        the stem before it halves both axes.
      context_blocks: attention blocks over all cells of the residual backbone's last stage.
      feature_channels: width of the fused feature map.
      order_channels: widths of the three stride-2 levels of the order head (paper, Fig. 3).
      gru_units: 0 leaves the GRU out.
      max_length: N, the longest word in characters.
      activation: after every convolution but ResNet-50's own, whose is ReLU (the paper's).
      normalization: synchronised batch norm, or group norm (exact for any split of a batch over workers).
      imagenet_weights: `none`, `download` (Keras), or the path of a Keras ResNet-50 weights file.
    """

    backbone: Literal["resnet50", "residual"] = "resnet50"
    height_px: int = 64
    width_px: int = 256
    resize: Literal["stretch", "pad"] = "stretch"
    max_stretch: float = 1.0
    map_stride_y: int = 2
    map_stride_x: int = 2
    stem_channels: int = 32
    stage_channels: tuple[int, ...] = ()
    stage_blocks: tuple[int, ...] = ()
    stage_strides: tuple[tuple[int, int], ...] = ()
    context_blocks: int = 0
    feature_channels: int = 128
    head_channels: int = 128
    order_channels: tuple[int, int, int] = (16, 32, 64)
    gru_units: int = 256
    gru_direction: Literal["forward", "both"] = "forward"
    max_length: int = 30
    activation: Literal["relu", "silu"] = "relu"
    normalization: Literal["batch", "group"] = "batch"
    imagenet_weights: str = "none"

    def __post_init__(self) -> None:
        for name in ("map_stride_y", "map_stride_x"):
            _require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "must be at least 1")
        for axis, size, stride in (
            ("height_px", self.height_px, self.map_stride_y),
            ("width_px", self.width_px, self.map_stride_x),
        ):
            _require(size > 0 and size % stride == 0, f"model.{axis}", size, f"must be a multiple of {stride}")
        # The order head halves the maps three times (rows and columns) and comes back.
        _require(self.map_width % 8 == 0, "model.width_px", self.width_px, "the map's width must be a multiple of 8")
        _require(
            self.map_height % 8 == 0, "model.height_px", self.height_px, "the map's height must be a multiple of 8"
        )
        _require(1 <= self.max_length <= 200, "model.max_length", self.max_length, "must lie in 1..200")
        _require(self.max_stretch >= 1, "model.max_stretch", self.max_stretch, "must be at least 1")
        if self.backbone == "residual":
            lengths = {len(self.stage_channels), len(self.stage_blocks), len(self.stage_strides)}
            _require(
                len(lengths) == 1 and len(self.stage_channels) >= 2,
                "model.stage_channels, stage_blocks, stage_strides",
                (self.stage_channels, self.stage_blocks, self.stage_strides),
                "must have the same length, at least 2",
            )
            _require(
                any(s == (self.map_stride_y, self.map_stride_x) for s in self.stage_input_strides),
                "model.map_stride_y, map_stride_x",
                (self.map_stride_y, self.map_stride_x),
                f"must be the stride of a stage: one of {self.stage_input_strides}",
            )
        else:
            _require(
                (self.map_stride_y, self.map_stride_x) == (2, 2),
                "model.map_stride_y, map_stride_x",
                (self.map_stride_y, self.map_stride_x),
                "the resnet50 backbone gives maps of stride 2",
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


@dataclass(frozen=True, config=_STRICT)
class TargetConfig:
    """How character quads become maps (spec section 4).

    Attributes:
      sigma: `stride` draws Gaussians of 2 px (the authors' code); `box` scales them with the character.
      sigma_box: with `box`, sigma as a share of the character's box, per axis.
      sigma_min_cells, sigma_max_px: bounds with `box`.
      order_threshold: zeta, cells whose localization target is above it carry an order label.
      shrink_ratio: r of the Vatti inset, the share of the box that carries a class label.
      class_region: `shrunk` is the paper's inset box, `gaussian` every cell above `class_threshold`.
    """

    sigma: Literal["stride", "box"] = "stride"
    sigma_box: float = 0.25
    sigma_min_cells: float = 0.5
    sigma_max_px: float = 8.0
    order_threshold: float = 0.2
    class_region: Literal["shrunk", "gaussian"] = "shrunk"
    class_threshold: float = 0.4
    shrink_ratio: float = 0.25

    def __post_init__(self) -> None:
        for name in ("order_threshold", "class_threshold", "shrink_ratio", "sigma_box"):
            value = getattr(self, name)
            _require(0 < value < 1, f"targets.{name}", value, "must lie between 0 and 1")


@dataclass(frozen=True, config=_STRICT)
class LossConfig:
    """Weights of the terms (spec section 5).

    Attributes:
      localization: `smooth_l1` balanced between foreground and background, or `squared` error over the target's mass.
      mutual_weight: of mutual supervision (textscanner/mutual.py); with 0, words without boxes are not learnt from.
      word_weight: of the decoded word's loss (textscanner/wordloss.py); 0 leaves it out.
      words_start, words_ramp: the step at which both begin, and over how many steps they rise to their weights.
      words_rows: both on all rows, as in the paper, or only on those without boxes.
    """

    class_weight: float = 1.0
    order_weight: float = 10.0
    localization_weight: float = 10.0
    localization: Literal["smooth_l1", "squared"] = "smooth_l1"
    mutual_weight: float = 0.0
    word_weight: float = 0.0
    words_start: int = 0
    words_ramp: int = 500
    words_rows: Literal["all", "without_boxes"] = "all"

    def __post_init__(self) -> None:
        weights = ("class_weight", "order_weight", "localization_weight", "mutual_weight", "word_weight")
        for field in (*weights, "words_start", "words_ramp"):
            _require(getattr(self, field) >= 0, f"losses.{field}", getattr(self, field), "must not be negative")

    @property
    def learns_from_words(self) -> bool:
        """Whether rows without character boxes teach anything."""
        return self.mutual_weight > 0 or self.word_weight > 0


@dataclass(frozen=True, config=_STRICT)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay to `final_fraction` of the peak.

    Attributes:
      clip_norm: the global norm that the all-reduced gradient is clipped to; 0 leaves it as it is.
      ema_momentum: 0 for none; else validation and checkpoints serve the moving average of the weights.
      accumulation: micro-batches per step; the global batch and the result stay the same, memory shrinks.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_steps: int = 500
    final_fraction: float = 0.01
    clip_norm: float = 5.0
    ema_momentum: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    accumulation: int = 1

    def __post_init__(self) -> None:
        _require(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "must not be negative")
        _require(self.learning_rate > 0, "optimizer.learning_rate", self.learning_rate, "must be positive")
        _require(self.warmup_steps >= 0, "optimizer.warmup_steps", self.warmup_steps, "must not be negative")
        _require(0 <= self.ema_momentum < 1, "optimizer.ema_momentum", self.ema_momentum, "must lie in [0, 1)")
        _require(0 <= self.final_fraction <= 1, "optimizer.final_fraction", self.final_fraction, "must lie in 0..1")
        _require(self.accumulation >= 1, "optimizer.accumulation", self.accumulation, "must be at least 1")
        _require(self.clip_norm >= 0, "optimizer.clip_norm", self.clip_norm, "must not be negative; 0 is off")


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """Which rows are read, in which order (cluster/plan.py).

    Attributes:
      train, val: URIs of prepared data sets.
      weights: how often each training set is drawn, in any unit; empty for by their number of rows.
      num_streams: virtual streams that a global batch is made of. The rows of a batch depend on it, never on the
        number of workers, which must divide it.
      augment: random colour, blur, noise and geometry on training images.
      task_cpus: CPUs reserved for each reading task.
      prefetch_batches: batches ready ahead of the step, per worker.
      cache_dir: a folder on each node where what was read from storage is kept; empty for none.
      cache_gib: at most so much of it, least recently used out first.
    """

    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    num_streams: int = 8
    augment: bool = True
    task_cpus: float = 0.5
    prefetch_batches: int = 4
    cache_dir: str = ""
    cache_gib: float = 20.0

    def __post_init__(self) -> None:
        if self.weights:
            _require(
                len(self.weights) == len(self.train) and all(w > 0 for w in self.weights),
                "data.weights",
                self.weights,
                f"must be one positive number per training set ({len(self.train)} given)",
            )
        _require(self.num_streams >= 1, "data.num_streams", self.num_streams, "must be at least 1")
        _require(self.cache_gib > 0, "data.cache_gib", self.cache_gib, "must be positive; an empty cache_dir is off")
        _require(self.prefetch_batches >= 1, "data.prefetch_batches", self.prefetch_batches, "must be at least 1")


@dataclass(frozen=True, config=_STRICT)
class TrainConfig:
    """How long, on how much, and how often something is said or saved. Cadences are in steps; the last step has it all.

    Attributes:
      global_batch: images per step over all workers and replicas.
      keep_checkpoints: the best so many by `best_metric` stay, and the last.
      max_failures: how often a run is restarted by itself after losing a worker.
      init: a checkpoint (URI, or the name of weights that the package brings) whose weights a new run starts with;
        empty for random ones.
      tracker: an experiment tracker that a run's scalars go to as well (cluster/trackers.py).
    """

    num_steps: int = 10_000
    global_batch: int = 64
    seed: int = 0
    log_every: int = 20
    validate_every: int = 1_000
    checkpoint_every: int = 1_000
    picture_every: int = 1_000
    keep_checkpoints: int = 2
    best_metric: str = "val/word_accuracy"
    workers: int = 1
    gpus_per_worker: int = 0
    cpus_per_worker: float = 0.5
    threads_per_worker: int = 0
    max_failures: int = 3
    init: str = ""
    tracker: Literal["none", "mlflow", "wandb"] = "none"

    def __post_init__(self) -> None:
        cadences = ("log_every", "validate_every", "checkpoint_every", "picture_every")
        for name in ("num_steps", "global_batch", "workers", "keep_checkpoints", *cadences):
            _require(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "must be at least 1")
        _require(self.max_failures >= -1, "train.max_failures", self.max_failures, "must be -1 (no limit) or more")

    @property
    def replicas_per_worker(self) -> int:
        """Devices that one worker drives: its GPUs, or its CPU as one."""
        return max(1, self.gpus_per_worker)

    @property
    def num_replicas(self) -> int:
        """Devices over all workers."""
        return self.workers * self.replicas_per_worker

    @property
    def replica_batch(self) -> int:
        """Images per step and device."""
        return self.global_batch // self.num_replicas


@dataclass(frozen=True, config=_STRICT)
class Config:
    """A complete run."""

    preset: str
    charset: Charset = ALPHANUMERIC
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    targets: TargetConfig = dataclasses.field(default_factory=TargetConfig)
    losses: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        batch, streams = self.train.global_batch, self.data.num_streams
        _require(
            batch % streams == 0,
            "train.global_batch",
            batch,
            f"must be a multiple of data.num_streams ({streams})",
        )
        _require(
            streams % self.train.workers == 0,
            "data.num_streams",
            streams,
            f"must be a multiple of train.workers ({self.train.workers})",
        )
        micro = self.train.num_replicas * self.optimizer.accumulation
        _require(
            batch % micro == 0,
            "train.global_batch",
            batch,
            f"must be a multiple of workers x devices x accumulation ({micro})",
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-compatible dict that `from_dict` reads."""
        return _ADAPTER.dump_python(self, mode="json")

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Config:
        """The config of such a dict.

        Raises:
          ValueError: naming each value that is unknown or breaks a rule.
        """
        try:
            return _ADAPTER.validate_python(dict(values))
        except pydantic.ValidationError as error:
            raise ValueError(_explain(error)) from None


_ADAPTER = pydantic.TypeAdapter(Config)


def override(config: Config, assignments: Iterable[str]) -> Config:
    """The config with `section.key=value` assignments applied, lists and tuples in JSON.

    Raises:
      ValueError: an assignment is not of that form, names no key, or its value breaks a rule.
    """
    values = config.to_dict()
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        section, dot, name = key.strip().partition(".")
        if not (equals and dot):
            raise ValueError(f"--set {assignment}: wanted section.key=value, for example train.num_steps=2000")
        known = values.get(section)
        if not isinstance(known, dict):
            sections = [k for k, v in values.items() if isinstance(v, dict)]
            raise ValueError(f"--set {assignment}: no section {section!r}; there are {', '.join(sections)}")
        if name not in known:
            raise ValueError(f"--set {assignment}: no key {name!r} in {section}; there are {', '.join(known)}")
        known[name] = json.loads(text) if text.lstrip().startswith("[") else text.strip()
    return Config.from_dict(values)


def difference(old: Config, new: Config) -> list[str]:
    """A line per value that differs, `section.key: old -> new`; empty if the configs are equal."""
    before, after = flatten(old.to_dict()), flatten(new.to_dict())
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in after if before.get(key) != after[key]]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def _explain(error: pydantic.ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        where = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        own = problem["type"] == "value_error"
        lines.append(message if own else f"{where} is {problem['input']!r}: {message}")
    return "; ".join(lines)
