"""AdamW as the training step needs it: pre-reduced gradients, steps that are skipped, decay of kernels only, a moving
average with a warm-up.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from textscanner.config import Config, OptimizerConfig

EMA_WARMUP_STEPS = 10  # the average over t steps has a momentum of at most t / (t + EMA_WARMUP_STEPS)


class PreReducedAdamW(keras.optimizers.AdamW):
    """AdamW for gradients that are already summed over the replicas, with steps that change nothing but the counter.

    A `tf.cond` around the whole update is impossible: Keras calls `merge_call`, which must not be in a branch. So the
    coefficients of the update are multiplied by 1 or 0.
    """

    def apply(self, grads: Any, trainable_variables: Any = None, accepted: Any = 1.0) -> None:
        """Updates the variables.

        Args:
          grads: finite; zeros in a step that is not accepted.
          trainable_variables: those that the optimizer was built for.
          accepted: 1, or 0 for a step in which only `iterations` advances; a float32 scalar.
        """
        self._accepted = accepted  # equal on all replicas
        super().apply(grads, trainable_variables)

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        # Together, because Keras hands one tensor to the update of each device.
        scalars = ops.stack([ops.cast(learning_rate, "float32"), ops.cast(self._accepted, "float32")])
        super()._backend_update_step(grads, trainable_variables, scalars)

    def _apply_weight_decay(self, variables: list[Any]) -> None:
        """Left to `update_step`, which knows whether the step counts."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable and its moments.

        Bias correction counts skipped steps, too: moments that skipped one of the first steps are taken for smaller.

        Args:
          gradient: of the variable's shape.
          variable: the variable.
          learning_rate: float32 [2], the learning rate and `accepted`.
        """
        learning_rate, accepted = ops.unstack(ops.cast(learning_rate, variable.dtype))
        learning_rate = learning_rate * accepted
        if self._use_weight_decay(variable):
            self.assign_sub(variable, variable * self.weight_decay * learning_rate)
        index, step = self._get_variable_index(variable), ops.cast(self.iterations + 1, variable.dtype)
        m, v = self._momentums[index], self._velocities[index]
        self.assign_add(m, (gradient - m) * ((1 - self.beta_1) * accepted))
        self.assign_add(v, (ops.square(gradient) - v) * ((1 - self.beta_2) * accepted))
        rate = learning_rate * ops.sqrt(1 - ops.power(self.beta_2, step)) / (1 - ops.power(self.beta_1, step))
        self.assign_sub(variable, m * rate / (ops.sqrt(v) + self.epsilon))

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
        # A skipped step changes no average; if it is the first one, the average still begins as the weights.
        momentum = ops.where(ops.cast(self._accepted, "float32") > 0, momentum, ops.minimum(step, 1.0))
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
