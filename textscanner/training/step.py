"""One training step and one evaluation step under the current `tf.distribute` strategy.

The step is pure but for the variables: batch in, a vector of metrics out. Gradients of sum(loss) / GLOBAL batch are
summed over all replicas in one flat all-reduce (the metrics ride along), clipped there, and applied: N workers
compute what one device computes. Keras' own `clipnorm` would clip each replica's part before the sum, and its
optimizer would all-reduce once more, hence `PreReducedAdamW`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from textscanner.config import Config, LossConfig, OptimizerConfig
from textscanner.model import build_model
from textscanner.model.assembly import Outputs, forward
from textscanner.training.losses import supervised_losses
from textscanner.training.mutual_supervision import MutualLosses, mutual_losses
from textscanner.training.targets import draw_targets
from textscanner.training.word_loss import word_losses

Batch = dict[str, tf.Tensor]

# What a step returns, in this order, each as a mean over the global batch (the norm: of the summed gradient).
STEP_METRICS = (
    *("loss", "class_loss", "order_loss", "localization_loss", "mutual_loss", "phi_classes", "phi_order"),
    *("word_loss", "trained_fraction", "gradient_norm"),
)


def batch_signature(config: Config, replica_batch_size: int) -> dict[str, tf.TensorSpec]:
    """Names, shapes and dtypes of a replica's batch; static, so that the step is traced once."""
    model, b = config.model, replica_batch_size
    return {
        "image": tf.TensorSpec((b, model.height_px, model.width_px, 3), tf.uint8),
        "quads": tf.TensorSpec((b, model.max_label_length, 4, 2), tf.float32),
        "ids": tf.TensorSpec((b, model.max_label_length), tf.int32),
        "length": tf.TensorSpec((b,), tf.int32),
        "has_quads": tf.TensorSpec((b,), tf.float32),
        "row_id": tf.TensorSpec((b,), tf.int64),
    }


class PreReducedAdamW(keras.optimizers.AdamW):
    """AdamW that takes gradients which are summed over the replicas already."""

    def _all_reduce_sum_gradients(self, grads_and_vars: list) -> list:
        return grads_and_vars


def learning_rate_schedule(config: OptimizerConfig, num_steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Linear warm-up to the peak, then cosine decay to `final_lr_fraction` of it at `num_steps`."""
    warmup = min(config.warmup_steps, max(num_steps - 1, 0))
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else config.learning_rate,
        decay_steps=max(num_steps - warmup, 1),
        alpha=config.final_lr_fraction,
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


def _make_optimizer(config: Config, model: keras.Model) -> keras.optimizers.Optimizer:
    settings = config.optimizer
    optimizer = PreReducedAdamW(
        learning_rate_schedule(settings, config.train.num_steps),
        weight_decay=settings.weight_decay,
        use_ema=settings.ema_momentum > 0,
        ema_momentum=settings.ema_momentum or 0.99,
        name="adamw",
    )
    # Biases and the norms' scales and offsets are vectors; only kernels are decayed.
    optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if len(v.shape) < 2])
    optimizer.build(model.trainable_variables)
    return optimizer


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingState:
    """What training changes. `serving` holds the weights that are validated and shipped: the moving average if
    the config asks for one, else it is `model` itself."""

    config: Config
    strategy: tf.distribute.Strategy
    model: keras.Model
    serving: keras.Model
    optimizer: keras.optimizers.Optimizer

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.optimizer.iterations.numpy())

    def sync_ema(self) -> None:
        """Copies the moving average into `serving`; statistics of batch norms come from the live model."""
        if self.serving is self.model:
            return
        if self.step == 0:  # no average yet
            self.serving.set_weights(self.model.get_weights())
            return
        averages = dict(
            zip(
                (v.path for v in self.model.trainable_variables),
                self.optimizer._model_variables_moving_average,  # Keras has no public name for them
                strict=True,
            )
        )
        for served, live in zip(self.serving.weights, self.model.weights, strict=True):
            served.assign(averages.get(live.path, live))


def create_state(config: Config, strategy: tf.distribute.Strategy) -> TrainingState:
    """Model and optimizer with fresh weights, the same on every worker for the same seed."""
    with strategy.scope():
        model = build_model(config, config.train.seed)
        serving = build_model(config, config.train.seed) if config.optimizer.ema_momentum else model
        return TrainingState(config, strategy, model, serving, _make_optimizer(config, model))


def make_train_step(state: TrainingState) -> Callable[[Any], tf.Tensor]:
    """The compiled step: a (distributed) batch in, float32 [len(STEP_METRICS)] out, the same on every worker."""
    config = state.config
    num_replicas = state.strategy.num_replicas_in_sync
    signature = batch_signature(config, config.train.global_batch_size // num_replicas)

    def replica_step(batch: Batch) -> tf.Tensor:
        batch = {name: tf.ensure_shape(batch[name], spec.shape) for name, spec in signature.items()}
        gradients, sums = _accumulate(state, batch)
        return _apply(state, gradients, sums / config.train.global_batch_size)

    @tf.function(autograph=False)
    def train_step(batch: Any) -> tf.Tensor:
        # Every replica holds the same reduced vector; the first local one is as good as any.
        return state.strategy.experimental_local_results(state.strategy.run(replica_step, (batch,)))[0]

    return train_step


def _accumulate(state: TrainingState, batch: Batch) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Gradients and loss sums of a replica's batch, one micro-batch after the other."""
    micros = state.config.optimizer.gradient_accumulation_steps
    parts = {name: tf.split(value, micros) for name, value in batch.items()}
    gradients: list[tf.Tensor] = []
    sums = tf.zeros(len(STEP_METRICS) - 1)
    for i in range(micros):
        with tf.control_dependencies(gradients):
            new, new_sums = _gradients(state, {name: value[i] for name, value in parts.items()})
        gradients = [a + b for a, b in zip(gradients, new, strict=True)] if gradients else new
        sums += new_sums
    return gradients, sums


def _gradients(state: TrainingState, batch: Batch) -> tuple[list[tf.Tensor], tf.Tensor]:
    model, config = state.model, state.config
    targets = draw_targets(
        batch["quads"],
        batch["ids"],
        tf.where(batch["has_quads"] > 0, batch["length"], 0),
        config.model,
        config.targets,
    )
    with tf.GradientTape() as tape:
        outputs = forward(model, batch["image"], training=True)
        losses = supervised_losses(outputs, targets, batch["has_quads"], config.losses)
        mutual, word = _from_words(outputs, batch, config)
        extra = config.losses.mutual_weight * mutual.loss + config.losses.word_weight * word
        total = losses.total + ramp(state.optimizer.iterations, config.losses) * extra
        loss = tf.reduce_sum(total) / config.train.global_batch_size
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    used = tf.cast(batch["length"] > 0, tf.float32) if config.losses.learns_from_words else batch["has_quads"]
    terms = (total, losses.classes, losses.order, losses.localization, *mutual, word, used)
    return gradients, tf.stack([tf.reduce_sum(term) for term in terms])


def ramp(step: tf.Tensor, config: LossConfig) -> tf.Tensor:
    """How far the losses without boxes are switched on.

    0 until `word_supervision_start_step`, 1 from `word_supervision_ramp_steps` steps later.
    """
    return tf.clip_by_value(
        (tf.cast(step, tf.float32) - config.word_supervision_start_step) / max(config.word_supervision_ramp_steps, 1),
        0.0,
        1.0,
    )


def _from_words(outputs: Outputs, batch: Batch, config: Config) -> tuple[MutualLosses, tf.Tensor]:
    """What needs no boxes: mutual supervision and the decoded word's loss, 0 for rows that have no part in them."""
    nothing = tf.zeros_like(batch["has_quads"])
    rows = nothing + 1.0 if config.losses.word_supervision_rows == "all" else 1.0 - batch["has_quads"]
    mutual, word = MutualLosses(nothing, nothing, nothing), nothing
    if config.losses.mutual_weight:
        mutual = MutualLosses(*(rows * part for part in mutual_losses(outputs, batch["ids"], batch["length"])))
    if config.losses.word_weight:
        word = rows * word_losses(outputs, batch["ids"], batch["length"])
    return mutual, word


def _apply(state: TrainingState, gradients: list[tf.Tensor], means: tf.Tensor) -> tf.Tensor:
    """Sums over replicas in one flat all-reduce, clips, applies; returns the step's metrics."""
    sizes = [g.shape.num_elements() for g in gradients]
    flat = tf.concat([tf.reshape(g, [-1]) for g in gradients] + [means], 0)
    if state.strategy.num_replicas_in_sync > 1:
        flat = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, flat)
    *parts, means = tf.split(flat, [*sizes, means.shape[0]])
    norm = tf.norm(flat[: sum(sizes)])
    clip = state.config.optimizer.clip_norm
    factor = tf.minimum(1.0, clip / tf.maximum(norm, 1e-12)) if clip else tf.constant(1.0)
    reduced = [tf.reshape(p, g.shape) * factor for p, g in zip(parts, gradients, strict=True)]
    state.optimizer.apply(reduced, state.model.trainable_variables)
    return tf.concat([means, norm[None]], 0)
