"""Checkpoints: load, resume, initialize, export of the weights, errors."""

import dataclasses
import itertools
import json
import pathlib

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

import textscanner
from tests.factories import batch_of
from tests.unit.textscanner.training.examples import tensors
from textscanner import checkpoint, checkpoint_files
from textscanner.charset import PRINTABLE_ASCII, Charset
from textscanner.config import override
from textscanner.data.images import decode, fit
from textscanner.errors import UserError
from textscanner.inference.reader import Reader
from textscanner.model.assembly import forward
from textscanner.presets import preset
from textscanner.training.loop import training_loop
from textscanner.training.step import create_state, make_train_step

TINY = override(preset("tiny"), ["train.global_batch_size=32", "optimizer.warmup_steps=20"])


def test_a_loaded_checkpoint_reads_like_the_trained_network(overfitted):
    images = [decode(record.image, record.source) for record in overfitted.words]
    reader = textscanner.load(overfitted.checkpoint)
    assert reader.read(images) == overfitted.readings
    # A row's reading does not depend on its company.
    assert reader.read(images[5:6]) == overfitted.readings[5:6]


@pytest.mark.parametrize("ema", ["0", "0.9"])
def test_a_resumed_run_equals_an_uninterrupted_one(words, tmp_path, ema):
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
    for a, b in zip(straight.ema_model.get_weights(), resumed.ema_model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("max_skipped_steps", [0, 7])
def test_weights_that_are_not_finite_are_never_saved(words, tmp_path, max_skipped_steps):
    """The rate is absurd, and the checkpoints' interval is no multiple of the log's."""
    cadences = ["train.num_steps=20", "train.log_every_steps=19", "train.checkpoint_every_steps=5"]
    config = override(TINY, [*cadences, "optimizer.learning_rate=1e9", "optimizer.warmup_steps=0"])
    state = create_state(config, tf.distribute.get_strategy())
    batches = itertools.repeat(tensors(batch_of(words[:32], config)))
    saved = []
    with pytest.raises(FloatingPointError, match="is not finite"):
        for event in training_loop(make_train_step(state), batches, 0, config.train, max_skipped_steps):
            if event.checkpoint:
                state.sync_ema()
                checkpoint.save(tmp_path / str(event.step), state, checkpoint.CheckpointMeta(event.step, 0.3, {}))
                saved.append(safetensors.numpy.load_file(tmp_path / str(event.step) / checkpoint_files.TRAINING_NAME))
    assert all(np.isfinite(array).all() for arrays in saved for array in arrays.values())

    state.model.weights[0].assign(np.full(state.model.weights[0].shape, np.inf))
    with pytest.raises(FloatingPointError, match=r"step 3: \S+ is not finite; lower optimizer\.learning_rate"):
        checkpoint.save(tmp_path / "last", state, checkpoint.CheckpointMeta(3, 0.3, {}))
    assert not (tmp_path / "last").exists()


def test_a_damaged_checkpoint_is_named_in_the_error(tmp_path, words):
    with pytest.raises(ValueError, match="is not a checkpoint"):
        textscanner.load(str(tmp_path))
    state = create_state(TINY, tf.distribute.get_strategy())
    checkpoint.save(tmp_path, state, checkpoint.CheckpointMeta(0, 0.3, {}))
    weights = tmp_path / checkpoint_files.WEIGHTS_NAME
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"weights\.safetensors"):
        textscanner.load(str(tmp_path))


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ({"step": 1, "threshold": 0.3}, "state.json is damaged: it has no 'metrics'; use another checkpoint"),
        ({"step": None, "threshold": 0.3, "metrics": {}}, "state.json is damaged: int"),
        (5, "is not a checkpoint"),
    ],
)
def test_a_damaged_state_file_is_a_user_error(tmp_path, state, problem):
    (tmp_path / checkpoint_files.STATE_NAME).write_text(json.dumps(state))
    with pytest.raises(UserError) as raised:
        checkpoint.read_meta(tmp_path)
    assert str(tmp_path) in str(raised.value) and problem in str(raised.value)


def test_an_error_in_the_config_names_its_file(tmp_path):
    values = TINY.to_dict()
    values["train"]["workers"] = 3
    (tmp_path / checkpoint_files.CONFIG_NAME).write_text(json.dumps(values))
    with pytest.raises(UserError) as raised:
        checkpoint.read_config(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path}/config.json: the key train.workers is no longer part")


def test_initialize_reports_the_layers_that_do_not_fit(overfitted):
    same = create_state(TINY, tf.distribute.get_strategy())
    assert checkpoint.initialize(overfitted.checkpoint, same) == []
    images = [decode(record.image, record.source) for record in overfitted.words]
    threshold = checkpoint.read_meta(pathlib.Path(overfitted.checkpoint)).threshold
    assert Reader(TINY, same.ema_model, threshold=threshold).read(images) == overfitted.readings
    assert same.step == 0
    greek = dataclasses.replace(TINY, charset=Charset("abc\u03b1"))
    assert checkpoint.initialize(overfitted.checkpoint, create_state(greek, tf.distribute.get_strategy())) == [
        "class_logits"
    ]
    wider = override(TINY, ["model.stem_channels=12", "model.stage_channels=[20, 28, 36]", "model.head_channels=32"])
    with pytest.raises(ValueError, match="of another preset"):
        checkpoint.initialize(overfitted.checkpoint, create_state(wider, tf.distribute.get_strategy()))


def test_differences_between_weights_and_config_are_those_of_charset_model_and_targets(tmp_path):
    (tmp_path / checkpoint_files.CONFIG_NAME).write_text(json.dumps(TINY.to_dict()))
    assert checkpoint.init_differences(tmp_path, override(TINY, ["optimizer.learning_rate=1", "train.seed=5"])) == []
    config = override(TINY, ["model.activation=silu", "targets.sigma=stride"])
    assert checkpoint.init_differences(tmp_path, dataclasses.replace(config, charset=Charset("abc"))) == [
        f"charset.characters {TINY.charset.characters} -> abc",
        "charset.skip_punctuation True -> False",
        "model.activation relu -> silu",
        "targets.sigma box -> stride",
    ]


@pytest.mark.parametrize("charset", [Charset(TINY.charset.characters[::-1]), PRINTABLE_ASCII])
def test_initialize_keeps_the_classifier_of_characters_that_both_charsets_have(charset, overfitted):
    """In another order they read the same; new letters start as their other case, new punctuation at random."""
    config = dataclasses.replace(TINY, charset=charset)
    state = create_state(config, tf.distribute.get_strategy())
    new_characters = set(charset.characters.lower()) - set(TINY.charset.characters)
    assert checkpoint.initialize(overfitted.checkpoint, state) == (["class_logits"] if new_characters else [])
    images = [decode(record.image, record.source) for record in overfitted.words]
    logits = forward(state.model, np.stack([fit(image, TINY.model)[0] for image in images]), False).classes.numpy()
    columns = [0, 1, *(charset.encode(c)[0] for c in TINY.charset.characters)]
    plain = create_state(TINY, tf.distribute.get_strategy())
    checkpoint.initialize(overfitted.checkpoint, plain)
    expected = forward(plain.model, np.stack([fit(image, TINY.model)[0] for image in images]), False).classes.numpy()
    np.testing.assert_allclose(logits[..., columns], expected, atol=1e-4)
    if charset.case_sensitive:
        np.testing.assert_allclose(logits[..., charset.encode("A")], logits[..., charset.encode("a")], atol=1e-4)


def test_initialize_rearranges_the_language_module_for_another_charset(tmp_path):
    """Its inputs and outputs are numbered by class, too."""
    language = ["model.language_blocks=1", "model.language_channels=32"]
    config = override(TINY, language)
    source = create_state(config, tf.distribute.get_strategy())
    rng = np.random.default_rng(0)
    for variable in source.ema_model.weights:
        variable.assign(rng.normal(0, 0.2, variable.shape))
    checkpoint.save(tmp_path, source, checkpoint.CheckpointMeta(0, 0.3, {}))
    image = tf.constant(rng.integers(0, 255, (2, 32, 64, 3)), tf.uint8)
    expected = forward(source.ema_model, image, False).language.numpy()
    reversed_charset = Charset(TINY.charset.characters[::-1])
    state = create_state(dataclasses.replace(config, charset=reversed_charset), tf.distribute.get_strategy())
    assert checkpoint.initialize(tmp_path, state) == []
    columns = [0, 1, *(reversed_charset.encode(c)[0] for c in TINY.charset.characters)]
    np.testing.assert_allclose(forward(state.model, image, False).language.numpy()[..., columns], expected, atol=1e-3)


def test_added_attention_blocks_start_as_the_identity_and_train(overfitted, words):
    with_context = override(TINY, ["model.attention_blocks=2"])
    state = create_state(with_context, tf.distribute.get_strategy())
    assert {name[:7] for name in checkpoint.initialize(overfitted.checkpoint, state)} == {"context"}
    batch = {name: tf.constant(value) for name, value in batch_of(words[:32], with_context).items()}
    plain = create_state(TINY, tf.distribute.get_strategy())
    checkpoint.initialize(overfitted.checkpoint, plain)
    for a, b in zip(
        forward(state.model, batch["image"], False)[:3], forward(plain.model, batch["image"], False)[:3], strict=True
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


def test_exported_float16_weights_read_like_the_checkpoint(overfitted, tmp_path):
    checkpoint.export_weights(overfitted.checkpoint, tmp_path)
    images = [decode(record.image, record.source) for record in overfitted.words]
    read = textscanner.load(str(tmp_path)).read(images)
    assert [r.text for r in read] == [r.text for r in overfitted.readings]
    whole = pathlib.Path(overfitted.checkpoint, checkpoint_files.WEIGHTS_NAME).stat().st_size
    assert pathlib.Path(tmp_path, checkpoint_files.WEIGHTS_NAME).stat().st_size < 0.7 * whole
