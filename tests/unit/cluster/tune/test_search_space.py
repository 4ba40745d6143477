"""Search spaces: parsing, sampling, and validation before a sweep starts."""

import dataclasses
import pathlib

import numpy as np
import pytest

from cluster.tune.search_space import SPACES, Domain, SearchSpace, check_space, load_space, parse_space
from textscanner.errors import UserError
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


def load_text(folder: pathlib.Path, name: str, text: str) -> SearchSpace:
    (folder / name).write_text(text)
    return load_space(str(folder / name))


def test_toml_and_yaml_files_give_the_same_space_and_its_samples_make_valid_configs(tmp_path):
    space = load_text(tmp_path, "space.toml", TOML)
    assert space == load_text(tmp_path, "space.yaml", YAML)
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
@pytest.mark.parametrize("base", ["small", "tiny", "paper"])
def test_the_ranges_of_named_spaces_contain_the_presets_values(name, base):
    config = preset(base).to_dict()
    for key, domain in SPACES[name].domains.items():
        section, field = key.split(".")
        assert domain.kind == "choice" or domain.contains(config[section][field]), key


@pytest.mark.parametrize("name", SPACES)
def test_named_spaces_fit_every_preset(name):
    for base in (preset("small"), preset("tiny"), preset("paper")):
        check_space(SPACES[name], base)
        assert SPACES[name].apply(base, SPACES[name].draw(np.random.default_rng(0))) != base


@pytest.mark.parametrize(
    ("sections", "message"),
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
        ({"optimizer": {"learning_rate": {"normal": [0, 1]}}}, "must have one of uniform"),
        ({"optimizer": {"learning_rate": 3}}, "must have one of uniform"),
        ({"optimizer": {"ema_momentum": {"uniform": [0.5, 1.5]}}}, "optimizer.ema_momentum is 1.5: must lie in"),
        ({"train": {"num_steps": {"choice": [10, 20]}}}, "set train.num_steps=VALUE"),
        ({"train": {"global_batch_size": {"choice": [8, 9]}}}, "must be a multiple of data.num_streams"),
        (
            {"losses": {"word_supervision_ramp_steps": {"randint": [1, 9], "when": {"losses.word_weight": [1]}}}},
            "depends on losses.word_weight, which the space does not vary",
        ),
        ({}, "the space is empty"),
        ([1], "must be a mapping"),
    ],
)
def test_invalid_spaces_are_refused_with_the_key_and_the_rule(sections, message):
    with pytest.raises(UserError, match="space") as raised:
        check_space(parse_space(sections), preset("tiny"))
    assert message in str(raised.value)


def test_values_that_break_a_rule_only_together_are_refused():
    space = SearchSpace(
        {"data.num_streams": Domain("choice", (4, 8)), "train.global_batch_size": Domain("choice", (8, 12))}
    )
    with pytest.raises(UserError, match=r"data\.num_streams=8, train\.global_batch_size=12 is not a valid config"):
        check_space(space, preset("tiny"))


def test_unreadable_files_and_unknown_names_are_refused(tmp_path):
    for name, text in (("a.toml", "optimizer = ["), ("a.yaml", "a: [")):
        with pytest.raises(UserError, match=rf"{name}': the file cannot be read"):
            load_text(tmp_path, name, text)
    with pytest.raises(UserError, match="space is 'everything': must be finetune, scratch, or a"):
        load_space("everything")


def test_a_sample_is_clipped_to_the_domains_and_restricted_to_a_smaller_space():
    space = SearchSpace({"a.rate": Domain("uniform", (0.0, 1.0)), "a.steps": Domain("randint", (3, 5))})
    assert space.clip({"a.rate": 1.2, "a.steps": 2.4}) == {"a.rate": 1.0, "a.steps": 3}
    assert space.restrict({"a.rate": 0.5, "a.steps": 4, "a.other": 1}) == {"a.rate": 0.5, "a.steps": 4}
    assert space.restrict({"a.rate": 0.5}) is None
    assert space.restrict({"a.rate": 0.5, "a.steps": 6}) is None
