"""AdamW as the training step needs it: pre-reduced gradients, decay of kernels only, a warmed-up moving average."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from textscanner.config import Config, OptimizerConfig

EMA_WARMUP_STEPS = 10  # the average over t steps has a momentum of at most t / (t + EMA_WARMUP_STEPS)


class PreReducedAdamW(keras.optimizers.AdamW):
    """AdamW for gradients that are already summed over the replicas."""

    def _all_reduce_sum_gradients(self, grads_and_vars: list[Any]) -> list[Any]:
        return grads_and_vars

    def _update_model_variables_moving_average(self, trainable_variables: list[Any]) -> None:
        """Updates the moving average with a momentum that grows to `ema_momentum`.

        With a constant momentum m, the first 1 / (1 - m) steps would validate little more than the initial weights.
        """
        if not self.use_ema:
            return
        step = ops.cast(self.iterations, "float32")  # 0 in the first step: the average begins as the new weights
        momentum = ops.minimum(self.ema_momentum, step / (step + EMA_WARMUP_STEPS))
        for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
            m = ops.cast(momentum, variable.dtype)
            average.assign(m * average + (1 - m) * variable)


class WarmupStableDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Warmup-stable-decay (WSD): linear warm-up to the peak, the peak, and cosine decay over the last steps."""

    def __init__(self, config: OptimizerConfig, num_steps: int) -> None:
        self.peak = config.learning_rate
        self.final = config.learning_rate * config.final_lr_fraction
        self.warmup_steps = min(config.warmup_steps, max(num_steps - 1, 0))
        self.decay_start = max(self.warmup_steps, round((1 - config.decay_fraction) * num_steps))
        self.decay_steps = num_steps - self.decay_start

    def __call__(self, step: Any) -> Any:
        """The rate, a float32 scalar, of the step after `step` steps."""
        step = ops.cast(step, "float32")
        rate = self.peak * ops.minimum(1.0, step / self.warmup_steps) if self.warmup_steps else self.peak
        if not self.decay_steps:
            return ops.convert_to_tensor(rate, "float32")
        progress = ops.clip((step - self.decay_start) / self.decay_steps, 0.0, 1.0)
        decay = 0.5 * (1.0 + ops.cos(math.pi * progress))
        return rate * decay + self.final * (1.0 - decay)


def make_optimizer(config: Config, model: keras.Model) -> keras.optimizers.Optimizer:
    """The built optimizer of a model's trainable variables."""
    settings = config.optimizer
    optimizer = PreReducedAdamW(
        learning_rate=WarmupStableDecay(settings, config.train.num_steps),
        weight_decay=settings.weight_decay,
        use_ema=settings.ema_momentum > 0,
        ema_momentum=settings.ema_momentum or 0.99,
        name="adamw",
    )
    optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if not _decays(v)])
    optimizer.build(model.trainable_variables)
    return optimizer


def _decays(variable: Any) -> bool:
    """Whether a variable is a kernel. Biases (a GRU's has two axes), norms and position tables do not decay."""
    return bool(variable.path.endswith("kernel"))
