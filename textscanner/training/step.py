"""One training step under the current `tf.distribute` strategy.

The step changes variables and nothing else: batch in, metrics out. Gradients of sum(loss) / GLOBAL batch size are
summed over all replicas in one flat all-reduce (which also carries the metrics), then clipped and applied, so N workers
compute what one device computes. Keras' own `clipnorm` would clip each replica's gradient before the sum, and its
optimizer would all-reduce once more; hence the one in `optimizer.py`.

A step whose summed loss or gradient is not finite is skipped: only the step counter advances, so data order and
schedule stay in step. The decision is made in the graph, on the all-reduced vector: it is the same on every replica.

Shapes: B replica's batch, H W input pixels, h w map cells, N positions, C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import keras
import numpy as np
import tensorflow as tf

from textscanner.charset import Charset
from textscanner.config import Config, LossConfig
from textscanner.model import build_model
from textscanner.model.assembly import Outputs, forward
from textscanner.training.losses import supervised_losses
from textscanner.training.mutual_supervision import MutualLosses, mutual_losses
from textscanner.training.optimizer import make_optimizer
from textscanner.training.targets import draw_targets
from textscanner.training.word_loss import word_losses

Batch = dict[str, tf.Tensor]


class StepMetrics(NamedTuple):
    """Metrics of one step, float32 scalars: means over the global batch unless stated otherwise.

    Attributes:
      loss: the weighted sum that is minimized.
      class_loss, order_loss, localization_loss: unweighted terms; 0 for rows without boxes.
      mutual_loss, word_loss: unweighted terms; 0 where they are switched off.
      phi_classes, phi_order: fraction of characters that the class and the order map detect, 0..1.
      trained_fraction: fraction of rows that contribute to the loss, 0..1.
      gradient_norm: L2 norm of the summed gradient, before clipping.
      skipped: 1 if the step was skipped, otherwise 0; in a skipped step other metrics are not finite.
    """

    loss: tf.Tensor
    class_loss: tf.Tensor
    order_loss: tf.Tensor
    localization_loss: tf.Tensor
    mutual_loss: tf.Tensor
    phi_classes: tf.Tensor
    phi_order: tf.Tensor
    word_loss: tf.Tensor
    trained_fraction: tf.Tensor
    gradient_norm: tf.Tensor
    skipped: tf.Tensor


TrainStep = Callable[[Any], StepMetrics]
"""A (distributed) batch -> metrics, the same on every worker."""


def batch_signature(config: Config, replica_batch_size: int) -> dict[str, tf.TensorSpec]:
    """Names, shapes and dtypes of a replica's batch. Shapes are static, so that the step is traced once."""
    model, b = config.model, replica_batch_size
    return {
        "image": tf.TensorSpec((b, model.height_px, model.width_px, 3), tf.uint8),
        "quads": tf.TensorSpec((b, model.max_label_length, 4, 2), tf.float32),
        "ids": tf.TensorSpec((b, model.max_label_length), tf.int32),
        "length": tf.TensorSpec((b,), tf.int32),
        "has_quads": tf.TensorSpec((b,), tf.float32),
        "case_known": tf.TensorSpec((b,), tf.float32),
        "row_id": tf.TensorSpec((b,), tf.int64),
    }


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingState:
    """Everything that training changes.

    Attributes:
      config: of the run.
      strategy: the distribution strategy that owns the variables.
      model: the live model.
      ema_model: the model that is validated and saved: the exponential moving average (EMA) of the weights if the
        config asks for one, otherwise `model` itself.
      optimizer: its `iterations` is the step counter.
    """

    config: Config
    strategy: tf.distribute.Strategy
    model: keras.Model
    ema_model: keras.Model
    optimizer: keras.optimizers.Optimizer

    @property
    def step(self) -> int:
        """Training steps done."""
        return int(self.optimizer.iterations.numpy())

    def sync_ema(self) -> None:
        """Copies the moving average into `ema_model`; batch-norm statistics, which have none, come from `model`."""
        if self.ema_model is self.model:
            return
        if self.step == 0:  # there is no average before the first step
            self.ema_model.set_weights(self.model.get_weights())
            return
        averages = dict(
            zip(
                (v.path for v in self.model.trainable_variables),
                self.optimizer._model_variables_moving_average,  # Keras has no public API for them
                strict=True,
            )
        )
        for averaged, live in zip(self.ema_model.weights, self.model.weights, strict=True):
            averaged.assign(averages.get(live.path, live))


def create_state(config: Config, strategy: tf.distribute.Strategy) -> TrainingState:
    """Model and optimizer with initial weights, which depend on `train.seed` only and so agree on every worker."""
    with strategy.scope():
        model = build_model(config, config.train.seed)
        ema_model = build_model(config, config.train.seed) if config.optimizer.ema_momentum else model
        return TrainingState(config, strategy, model, ema_model, make_optimizer(config, model))


def make_train_step(state: TrainingState) -> TrainStep:
    """Compiles the training step of a state."""
    config = state.config
    num_replicas = state.strategy.num_replicas_in_sync
    signature = batch_signature(config, config.train.global_batch_size // num_replicas)

    def replica_step(batch: Batch) -> tf.Tensor:
        batch = {name: tf.ensure_shape(batch[name], spec.shape) for name, spec in signature.items()}
        # The forward pass updates them, before it is known whether the step counts.
        statistics = [tf.identity(v.value) for v in state.model.non_trainable_variables]
        gradients, sums = _accumulate(state, batch)
        metrics = _apply(state, gradients, tf.stack(sums) / config.train.global_batch_size)
        _restore_if(metrics.skipped > 0, state.model.non_trainable_variables, statistics)
        return tf.stack(metrics)

    def train_step(batch: Any) -> StepMetrics:
        # Every replica holds the same reduced vector, so the first local one is enough.
        vector = state.strategy.experimental_local_results(state.strategy.run(replica_step, (batch,)))[0]
        return StepMetrics(*tf.unstack(vector))

    return cast(TrainStep, tf.function(train_step, autograph=False))


def _accumulate(state: TrainingState, batch: Batch) -> tuple[list[tf.Tensor], StepMetrics]:
    """Sums gradients and metrics over the micro-batches of a replica's batch, one after the other."""
    num_micro_batches = state.config.optimizer.gradient_accumulation_steps
    parts = {name: tf.split(value, num_micro_batches) for name, value in batch.items()}
    gradients: list[tf.Tensor] = []
    sums = StepMetrics(*(tf.zeros(()) for _ in StepMetrics._fields))
    for i in range(num_micro_batches):
        # Without the dependency, TensorFlow may run micro-batches in parallel, and memory would not shrink.
        with tf.control_dependencies(gradients):
            micro_gradients, micro_sums = _gradients(state, {name: value[i] for name, value in parts.items()})
        gradients = [a + b for a, b in zip(gradients, micro_gradients, strict=True)] if gradients else micro_gradients
        sums = StepMetrics(*(a + b for a, b in zip(sums, micro_sums, strict=True)))
    return gradients, sums


def _gradients(state: TrainingState, batch: Batch) -> tuple[list[tf.Tensor], StepMetrics]:
    """Gradients of sum(loss) / global batch size, and the metrics summed over the rows of a micro-batch."""
    model, config = state.model, state.config
    targets = draw_targets(
        batch["quads"],
        batch["ids"],
        tf.where(batch["has_quads"] > 0, batch["length"], 0),
        config.model,
        config.targets,
    )
    other_ids = _other_case(batch["ids"], batch["case_known"], config.charset)
    other_classes = _other_case(targets.classes, batch["case_known"], config.charset)
    with tf.GradientTape() as tape:
        outputs = forward(model, batch["image"], training=True)
        losses = supervised_losses(outputs, targets, batch["has_quads"], config.losses, other_classes)
        mutual, word = _word_supervision(outputs, batch, other_ids, config.losses)
        extra = config.losses.mutual_weight * mutual.loss + config.losses.word_weight * word
        total = losses.total + ramp(state.optimizer.iterations, config.losses) * extra
        loss = tf.reduce_sum(total) / config.train.global_batch_size
    gradients = tape.gradient(
        loss,
        [v.value for v in model.trainable_variables],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,  # of the language module, if no word loss trains it
    )
    trained = tf.cast(batch["length"] > 0, tf.float32) if config.losses.learns_from_words else batch["has_quads"]
    sums = StepMetrics(
        loss=tf.reduce_sum(total),
        class_loss=tf.reduce_sum(losses.classes),
        order_loss=tf.reduce_sum(losses.order),
        localization_loss=tf.reduce_sum(losses.localization),
        mutual_loss=tf.reduce_sum(mutual.loss),
        phi_classes=tf.reduce_sum(mutual.phi_classes),
        phi_order=tf.reduce_sum(mutual.phi_order),
        word_loss=tf.reduce_sum(word),
        trained_fraction=tf.reduce_sum(trained),
        gradient_norm=tf.zeros(()),  # both are known after the all-reduce only
        skipped=tf.zeros(()),
    )
    return gradients, sums


def ramp(step: tf.Tensor, config: LossConfig) -> tf.Tensor:
    """Factor of the losses that need no boxes: 0 until their first step, then linearly to 1 over the ramp."""
    progress = tf.cast(step, tf.float32) - config.word_supervision_start_step
    return tf.clip_by_value(progress / max(config.word_supervision_ramp_steps, 1), 0.0, 1.0)


def _other_case(ids: tf.Tensor, case_known: tf.Tensor, charset: Charset) -> tf.Tensor | None:
    """For each class id the other one that is correct too: a letter's other case, in rows whose case is not known.

    Args:
      ids: int32 [B, ...], ids or negative numbers.
      case_known: float32 [B], 1 or 0.
      charset: its classes.

    Returns:
      int32 [B, ...], the same id where only that is correct; None for a charset without pairs of cases.
    """
    other = charset.other_case_ids
    if (other == np.arange(len(other))).all():
        return None
    unknown = tf.reshape(case_known < 0.5, [-1] + [1] * (len(ids.shape) - 1)) & (ids >= 0)
    return tf.where(unknown, tf.gather(other, tf.maximum(ids, 0)), ids)


def _word_supervision(
    outputs: Outputs, batch: Batch, other_ids: tf.Tensor | None, config: LossConfig
) -> tuple[MutualLosses, tf.Tensor]:
    """Mutual supervision and the loss of the decoded word, each float32 [B]; 0 for rows that they do not apply to."""
    zeros = tf.zeros_like(batch["has_quads"])
    rows = zeros + 1.0 if config.word_supervision_rows == "all" else 1.0 - batch["has_quads"]
    mutual, word = MutualLosses(zeros, zeros, zeros), zeros
    if config.mutual_weight:
        mutual = mutual_losses(outputs, batch["ids"], batch["length"], other_ids)
        mutual = MutualLosses(*(rows * part for part in mutual))
    if config.word_weight:
        word = rows * word_losses(outputs, batch["ids"], batch["length"], other_ids)
    return mutual, word


def _apply(state: TrainingState, gradients: list[tf.Tensor], metrics: tf.Tensor) -> StepMetrics:
    """Sums over replicas in one flat all-reduce, clips, and applies the gradients if all is finite.

    Args:
      state: its variables are updated.
      gradients: one tensor per trainable variable.
      metrics: this replica's share of the StepMetrics, float32 [len(StepMetrics._fields)].

    Returns:
      the metrics of the global batch, with the gradient's norm and whether the step was skipped.
    """
    sizes = [g.shape.num_elements() for g in gradients]
    flat = tf.concat([tf.reshape(g, [-1]) for g in gradients] + [metrics], 0)
    if state.strategy.num_replicas_in_sync > 1:
        flat = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, flat)
    *parts, metrics = tf.split(flat, [*sizes, metrics.shape[0]])
    norm = tf.norm(flat[: sum(sizes)])
    # An overflow of the norm alone counts too: the optimizer squares the gradient as well.
    finite = tf.reduce_all(tf.math.is_finite(metrics)) & tf.math.is_finite(norm)
    clip = state.config.optimizer.clip_norm
    factor = tf.minimum(1.0, clip / tf.maximum(norm, 1e-12)) if clip else tf.constant(1.0)
    factor = tf.where(finite, factor, 0.0)  # and `multiply_no_nan` makes 0 of what is not finite times 0
    reduced = [tf.reshape(tf.math.multiply_no_nan(p, factor), g.shape) for p, g in zip(parts, gradients, strict=True)]
    state.optimizer.apply(reduced, state.model.trainable_variables, accepted=tf.cast(finite, tf.float32))
    skipped = 1.0 - tf.cast(finite, tf.float32)
    return StepMetrics(*tf.unstack(metrics))._replace(gradient_norm=norm, skipped=skipped)


def _restore_if(skipped: tf.Tensor, variables: list[keras.Variable], values: list[tf.Tensor]) -> None:
    """Assigns the earlier values to variables if the step, a bool scalar, is skipped."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(tf.where(skipped, value, variable.value))
