"""Search spaces: what they say, what they refuse before anything starts."""

import dataclasses
import pathlib

import numpy as np
import pytest

from cluster.tune.search_space import SPACES, Domain, SearchSpace, check_space, load_space, parse_space
from textscanner.presets import preset

TOML = """
optimizer.learning_rate = { loguniform = [3e-4, 6e-3] }
model.stage_channels = { choice = [[16, 24, 32], [16, 32, 48]] }
losses.word_weight = { choice = [0.0, 1.0] }
losses.word_supervision_ramp_steps = { randint = [50, 52], when = { "losses.word_weight" = [1.0] } }
"""
YAML = """
optimizer: {learning_rate: {loguniform: [3.0e-4, 6.0e-3]}}
model: {stage_channels: {choice: [[16, 24, 32], [16, 32, 48]]}}
losses:
  word_weight: {choice: [0.0, 1.0]}
  word_supervision_ramp_steps: {randint: [50, 52], when: {losses.word_weight: [1.0]}}
"""


def written(folder: pathlib.Path, name: str, text: str) -> SearchSpace:
    (folder / name).write_text(text)
    return load_space(str(folder / name))


def test_a_file_becomes_configs_that_lie_in_it(tmp_path):
    space = written(tmp_path, "space.toml", TOML)
    assert space == written(tmp_path, "space.yaml", YAML)
    config = preset("tiny")
    check_space(space, config)
    rng = np.random.default_rng(0)
    ramps, channels = set(), set()
    for _ in range(200):
        changed = space.apply(config, space.draw(rng))
        assert 3e-4 <= changed.optimizer.learning_rate <= 6e-3
        channels.add(changed.model.stage_channels)
        if changed.losses.word_weight == 0:  # the condition is not met: the preset's value stays
            assert changed.losses.word_supervision_ramp_steps == config.losses.word_supervision_ramp_steps
        else:
            ramps.add(changed.losses.word_supervision_ramp_steps)
        rest = dataclasses.replace(changed, optimizer=config.optimizer, losses=config.losses, model=config.model)
        assert rest == config
    assert ramps == {50, 51, 52} and channels == {(16, 24, 32), (16, 32, 48)}


@pytest.mark.parametrize("name", SPACES)
def test_the_spaces_that_come_with_it_fit_every_preset(name):
    for start in ("small", "tiny", "paper"):
        check_space(SPACES[name], preset(start))
        assert SPACES[name].apply(preset(start), SPACES[name].draw(np.random.default_rng(0))) != preset(start)


@pytest.mark.parametrize(
    ("told", "complaint"),
    [
        (
            {"optimizer": {"learning_rte": {"choice": [1]}}},
            "no key 'learning_rte' in optimizer; keys: learning_rate",
        ),
        ({"optimiser": {"learning_rate": {"choice": [1]}}}, "no section 'optimiser'"),
        ({"optimizer": {"learning_rate": {"choice": ["fast"]}}}, "optimizer.learning_rate is 'fast'"),
        ({"optimizer": {"learning_rate": {"choice": []}}}, "optimizer.learning_rate: choice is empty"),
        ({"optimizer": {"learning_rate": {"loguniform": [0, 1]}}}, "must lie above 0"),
        ({"optimizer": {"learning_rate": {"uniform": [2, 1]}}}, "low below high"),
        ({"optimizer": {"gradient_accumulation_steps": {"randint": [1.5, 3]}}}, "whole numbers"),
        ({"optimizer": {"learning_rate": {"normal": [0, 1]}}}, "wanted one of uniform"),
        ({"optimizer": {"learning_rate": 3}}, "wanted one of uniform"),
        ({"optimizer": {"ema_momentum": {"uniform": [0.5, 1.5]}}}, "optimizer.ema_momentum is 1.5: must lie in"),
        ({"train": {"num_steps": {"choice": [10, 20]}}}, "use --set train.num_steps=VALUE"),
        ({"train": {"global_batch_size": {"choice": [8, 9]}}}, "must be a multiple of data.num_streams"),
        (
            {"losses": {"word_supervision_ramp_steps": {"randint": [1, 9], "when": {"losses.word_weight": [1]}}}},
            "depends on losses.word_weight, which the space does not vary",
        ),
        ({}, "the space is empty"),
        ([1], "must be a mapping"),
    ],
)
def test_mistakes_are_named(told, complaint):
    with pytest.raises(ValueError, match="space") as raised:
        check_space(parse_space(told), preset("tiny"))
    assert complaint in str(raised.value)


def test_values_that_do_not_go_together_are_found_before_the_first_trial():
    space = SearchSpace(
        {"data.num_streams": Domain("choice", (4, 8)), "train.global_batch_size": Domain("choice", (8, 12))}
    )
    with pytest.raises(ValueError, match=r"data\.num_streams=8, train\.global_batch_size=12 makes no config"):
        check_space(space, preset("tiny"))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for name, text in (("a.toml", "optimizer = ["), ("a.yaml", "a: [")):
        with pytest.raises(ValueError, match="cannot be read"):
            written(tmp_path, name, text)
    with pytest.raises(ValueError, match="finetune, scratch, or a"):
        load_space("everything")
