"""The optimizer: its schedule, which variables decay, and the moving average's warm-up."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from textscanner.config import OptimizerConfig, override
from textscanner.model import build_model
from textscanner.presets import preset
from textscanner.training.optimizer import WarmupStableDecay, make_optimizer

TINY = preset("tiny")


def rates(num_steps, **settings):
    schedule = WarmupStableDecay(OptimizerConfig(learning_rate=1.0, final_lr_fraction=0.1, **settings), num_steps)
    return np.array([float(schedule(step)) for step in range(num_steps + 1)])


def test_the_rate_warms_up_stays_and_decays_over_the_last_fifth():
    values = rates(100, warmup_steps=10, decay_fraction=0.2)
    np.testing.assert_allclose(values[:11], np.arange(11) / 10, atol=1e-6)
    np.testing.assert_allclose(values[10:81], 1.0, atol=1e-6)
    assert (np.diff(values[80:]) < 0).all() and values[90] == pytest.approx(0.55)
    assert values[100] == pytest.approx(0.1)


def test_without_decay_the_last_rate_is_the_peak_so_that_another_run_can_continue():
    assert rates(50, warmup_steps=5, decay_fraction=0.0)[-1] == 1.0


def test_a_warmup_longer_than_the_run_ends_before_its_last_step():
    assert rates(5, warmup_steps=100)[4] == pytest.approx(1.0)


@pytest.fixture
def gru_network():
    config = override(TINY, ["model.normalization=group", "model.language_blocks=1", "optimizer.learning_rate=0.1"])
    return config, build_model(config)


def test_weight_decay_shrinks_kernels_and_nothing_else(gru_network):
    """Also not the GRU's bias, which has two axes, nor the table of positions."""
    config, model = gru_network
    optimizer = make_optimizer(override(config, ["optimizer.weight_decay=0.5", "optimizer.warmup_steps=0"]), model)
    before = {v.path: v.numpy().copy() for v in model.trainable_variables}
    for variable in model.trainable_variables:
        variable.assign(tf.ones_like(variable))
    optimizer.apply([tf.zeros_like(v.value) for v in model.trainable_variables], model.trainable_variables)
    shrunk = {v.path for v in model.trainable_variables if (v.numpy() < 1).all()}
    same = {v.path for v in model.trainable_variables if (v.numpy() == 1).all()}
    assert shrunk | same == before.keys() and shrunk and same
    assert all(path.endswith("kernel") for path in shrunk)
    assert not any(path.endswith("kernel") for path in same)
    assert any("gru" in path and path.endswith("bias") for path in same)
    assert any(path.endswith("table") for path in same)
    assert model.get_layer("class_logits").kernel.numpy().max() == pytest.approx(1 - 0.1 * 0.5)


def one_layer():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="layer")])
    return TINY, model


def test_the_moving_average_soon_forgets_the_initial_weights():
    """After 30 steps an average with a constant momentum of 0.999 would still be 97 % the first weights."""
    config, model = one_layer()
    optimizer = make_optimizer(override(config, ["optimizer.ema_momentum=0.999", "optimizer.weight_decay=0"]), model)
    variables = model.trainable_variables
    zeros = [tf.zeros_like(v.value) for v in variables]
    optimizer.apply(zeros, variables)
    for variable in variables:
        variable.assign(tf.ones_like(variable))
    for _ in range(30):
        optimizer.apply(zeros, variables)
    averages = np.concatenate([np.ravel(v.numpy()) for v in optimizer._model_variables_moving_average])
    assert np.abs(averages - 1).max() < 0.05


def test_the_moving_average_reaches_its_momentum():
    config, model = one_layer()
    optimizer = make_optimizer(override(config, ["optimizer.ema_momentum=0.9", "optimizer.weight_decay=0"]), model)
    variables = model.trainable_variables
    optimizer.iterations.assign(1000)
    [average, *_] = optimizer._model_variables_moving_average
    average.assign(tf.zeros_like(average))
    variables[0].assign(tf.ones_like(variables[0]))
    optimizer.apply([tf.zeros_like(v.value) for v in variables], variables)
    np.testing.assert_allclose(average.numpy(), 0.1, rtol=1e-5)
