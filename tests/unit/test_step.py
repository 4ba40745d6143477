"""One step and the network: traced once, deterministic in evaluation, learns by heart, comes back from disk."""

import dataclasses
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import textscanner
from tests.factories import batch_of
from textscanner import checkpoint, checkpoint_files
from textscanner.charset import Charset
from textscanner.config import override
from textscanner.data.images import decode
from textscanner.inference.reader import Reader
from textscanner.model import build_model
from textscanner.model.assembly import forward
from textscanner.model.layers import ChannelGroupNorm
from textscanner.presets import preset
from textscanner.training.step import STEP_METRICS, create_state, make_train_step

TINY = override(preset("tiny"), ["train.global_batch_size=32", "optimizer.warmup_steps=20"])


def tensors(batch):
    return {name: tf.constant(value) for name, value in batch.items()}


def test_preset_sizes():
    assert build_model(preset("paper")).count_params() == pytest.approx(25.44e6, rel=0.001)
    assert build_model(preset("small")).count_params() < 3e6


def test_features_reach_every_cell():
    """Random images move every cell of every map: nothing is constant, nothing is zero."""
    config = preset("small")
    model = build_model(config)
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 128, 3), np.uint8)
    for maps in forward(model, tf.constant(images), training=False):
        spread = np.asarray(maps).std(0)
        assert (spread > 1e-6).all()


@pytest.mark.parametrize(("name", "lowest"), [("relu", 0.0), ("silu", -0.279)])
def test_every_convolution_has_the_activation_of_the_config(name, lowest):
    """All but the logits and what is added to a shortcut; SiLU's minimum is -0.2785."""
    model = build_model(override(TINY, [f"model.activation={name}"]))
    activated = [layer for layer in model.layers if isinstance(layer, keras.layers.Activation)]
    of_convolutions = [layer for layer in activated if not layer.name.endswith("_float32")]
    assert {keras.activations.serialize(layer.activation) for layer in of_convolutions} == {name}
    image = np.random.default_rng(0).integers(0, 256, (4, 32, 64, 3), np.uint8)
    values = keras.Model(model.input, [layer.output for layer in of_convolutions])(image)
    lows = [float(np.min(value)) for value in values]
    assert lowest <= min(lows) <= lowest / 2


def test_group_norm_is_the_one_of_keras():
    x = np.random.default_rng(0).normal(3.0, 2.0, (3, 1, 5, 24)).astype(np.float32)
    ours, theirs = ChannelGroupNorm(), keras.layers.GroupNormalization(groups=3, epsilon=1e-5)
    ours.build(x.shape)
    theirs.build(x.shape)
    for layer in (ours, theirs):
        layer.set_weights([np.linspace(0.5, 2, 24), np.linspace(-1, 1, 24)])
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-4)


def test_same_seed_same_weights():
    first, again, other = (build_model(TINY, seed) for seed in (1, 1, 2))
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(first.get_weights(), other.get_weights(), strict=True))


def test_evaluation_is_deterministic_and_leaves_statistics_alone(words):
    model = build_model(TINY)
    image = tf.constant(batch_of(words[:8], TINY)["image"])
    before = [w.copy() for w in model.get_weights()]
    first, second = forward(model, image, training=False), forward(model, image, training=False)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    forward(model, image, training=True)
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))


def test_32_words_are_learnt_by_heart_in_one_trace(learnt):
    assert learnt.traces == 1
    assert learnt.losses[-1] < 0.1 * learnt.losses[0]
    readings = [reading.text for reading in learnt.readings]
    assert readings == [record.text.lower() for record in learnt.words]


def test_a_checkpoint_reads_what_the_trained_network_read(learnt):
    images = [decode(record.image, record.source) for record in learnt.words]
    reader = textscanner.load(learnt.checkpoint)
    assert reader.read(images) == learnt.readings
    # A row's reading does not depend on its company.
    assert reader.read(images[5:6]) == learnt.readings[5:6]


def test_characters_are_found_where_they_stand(learnt):
    near = [
        quad[:, 0].min() - 5 < character.x_px < quad[:, 0].max() + 5
        for record, reading in zip(learnt.words, learnt.readings, strict=True)
        for quad, character in zip(record.quads, reading.characters, strict=True)
    ]
    assert np.mean(near) > 0.9


@pytest.mark.parametrize("ema", ["0", "0.9"])
def test_training_goes_on_as_if_it_had_not_stopped(words, tmp_path, ema):
    config = override(TINY, ["train.num_steps=40", f"optimizer.ema_momentum={ema}"])
    batches = [tensors(batch_of(words[i : i + 32], config)) for i in range(8)]
    straight = create_state(config, tf.distribute.get_strategy())
    step = make_train_step(straight)
    for batch in batches[:4]:
        step(batch)
    straight.sync_ema()
    checkpoint.save(tmp_path, straight, checkpoint.CheckpointMeta(4, 0.3, {}))
    for batch in batches[4:]:
        step(batch)
    resumed = create_state(dataclasses.replace(config), tf.distribute.get_strategy())
    assert checkpoint.restore(tmp_path, resumed).step == resumed.step == 4
    step = make_train_step(resumed)
    for batch in batches[4:]:
        step(batch)
    straight.sync_ema(), resumed.sync_ema()
    for a, b in zip(straight.serving.get_weights(), resumed.serving.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_accumulation_changes_nothing_but_memory(words):
    config = override(TINY, ["model.normalization=group"])
    batch = tensors(batch_of(words[:32], config))
    rows = []
    for micros in (1, 2):
        state = create_state(
            override(config, [f"optimizer.gradient_accumulation_steps={micros}"]), tf.distribute.get_strategy()
        )
        step = make_train_step(state)
        rows.append(np.stack([step(batch).numpy() for _ in range(4)]))
    np.testing.assert_allclose(rows[0], rows[1], rtol=2e-4)


def test_the_learning_rate_given_is_the_one_used(words):
    config = override(TINY, ["optimizer.learning_rate=0.002", "optimizer.warmup_steps=2", "train.num_steps=40"])
    state = create_state(config, tf.distribute.get_strategy())
    step = make_train_step(state)
    batch = tensors(batch_of(words[:32], config))
    rates = []
    for _ in range(40):
        rates.append(float(state.optimizer.learning_rate.numpy()))
        step(batch)
    assert rates[0] == 0 and max(rates) == pytest.approx(0.002)
    assert float(state.optimizer.learning_rate.numpy()) == pytest.approx(0.01 * 0.002, rel=1e-3)


def test_the_gradient_is_clipped_to_its_norm(words):
    batch = tensors(batch_of(words[:32], TINY))
    moved = []
    for clip in (0, 1e-6):
        config = override(TINY, [f"optimizer.clip_norm={clip}", "optimizer.warmup_steps=0"])
        state = create_state(config, tf.distribute.get_strategy())
        norm = make_train_step(state)(batch)[STEP_METRICS.index("gradient_norm")]
        velocity = [v for v in state.optimizer.variables if "velocity" in v.path]
        moved.append((float(norm), sum(float(tf.reduce_sum(v.value)) for v in velocity)))
    assert moved[0][0] == pytest.approx(moved[1][0])  # the norm is reported before clipping
    # Adam's second moment after one step is (1 - beta2) * sum of squared gradients.
    assert moved[1][1] == pytest.approx(0.001 * 1e-12, rel=0.01)


def test_a_broken_checkpoint_is_named(tmp_path, words):
    with pytest.raises(ValueError, match="is not a checkpoint"):
        textscanner.load(str(tmp_path))
    state = create_state(TINY, tf.distribute.get_strategy())
    checkpoint.save(tmp_path, state, checkpoint.CheckpointMeta(0, 0.3, {}))
    weights = tmp_path / checkpoint_files.WEIGHTS_NAME
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"weights\.safetensors"):
        textscanner.load(str(tmp_path))


def test_a_run_may_start_with_other_weights_and_says_what_does_not_fit(learnt):
    same = create_state(TINY, tf.distribute.get_strategy())
    assert checkpoint.initialize(learnt.checkpoint, same) == []
    images = [decode(record.image, record.source) for record in learnt.words]
    threshold = checkpoint.read_meta(pathlib.Path(learnt.checkpoint)).threshold
    assert Reader(TINY, same.serving, threshold=threshold).read(images) == learnt.readings
    assert same.step == 0
    for characters in ("abc", TINY.charset.characters[::-1]):
        letters = dataclasses.replace(TINY, charset=Charset(characters))
        other = create_state(letters, tf.distribute.get_strategy())
        assert checkpoint.initialize(learnt.checkpoint, other) == ["class_logits"]
    wider = override(TINY, ["model.stem_channels=12", "model.stage_channels=[20, 28, 36]", "model.head_channels=32"])
    with pytest.raises(ValueError, match="of another preset"):
        checkpoint.initialize(learnt.checkpoint, create_state(wider, tf.distribute.get_strategy()))


def test_a_network_that_is_given_context_begins_as_the_one_without(learnt, words):
    with_context = override(TINY, ["model.attention_blocks=2"])
    state = create_state(with_context, tf.distribute.get_strategy())
    assert {name[:7] for name in checkpoint.initialize(learnt.checkpoint, state)} == {"context"}
    batch = {name: tf.constant(value) for name, value in batch_of(words[:32], with_context).items()}
    plain = create_state(TINY, tf.distribute.get_strategy())
    checkpoint.initialize(learnt.checkpoint, plain)
    for a, b in zip(
        forward(state.model, batch["image"], False), forward(plain.model, batch["image"], False), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-4)
    before = {v.path: v.numpy() for v in state.model.trainable_variables if v.path.startswith("context")}
    assert len(before) > 20
    step = make_train_step(state)
    for _ in range(4):  # one at rate 0, one that moves what closes the blocks, then what lies behind it
        step(batch)
    for variable in state.model.trainable_variables:
        if variable.path in before and not variable.path.endswith("key/bias"):  # a softmax does not see it
            assert (variable.numpy() != before[variable.path]).any(), variable.path


def test_slim_weights_read_as_the_checkpoint(learnt, tmp_path):
    checkpoint.export_weights(learnt.checkpoint, tmp_path)
    images = [decode(record.image, record.source) for record in learnt.words]
    read = textscanner.load(str(tmp_path)).read(images)
    assert [r.text for r in read] == [r.text for r in learnt.readings]
    whole = pathlib.Path(learnt.checkpoint, checkpoint_files.WEIGHTS_NAME).stat().st_size
    assert pathlib.Path(tmp_path, checkpoint_files.WEIGHTS_NAME).stat().st_size < 0.7 * whole
