"""Numbering of characters; configs that are checked when built."""

import dataclasses

import numpy as np
import pytest

from cluster.config import RunSpec
from cluster.config import override as override_spec
from textscanner.charset import ALPHANUMERIC, UNKNOWN_CHARACTER, Charset, load_charset
from textscanner.config import Config, OptimizerConfig, difference, override
from textscanner.presets import PRESETS, preset


def test_every_character_comes_back():
    assert ALPHANUMERIC.num_classes == 38
    assert ALPHANUMERIC.decode(ALPHANUMERIC.encode(ALPHANUMERIC.characters)) == ALPHANUMERIC.characters
    assert ALPHANUMERIC.encode("0aZ").tolist() == [2, 12, 37]
    cased = Charset("aA", case_sensitive=True)
    assert cased.decode(cased.encode("AaA")) == "AaA"


def test_unknown_characters_are_marked_and_background_ends_a_word():
    assert ALPHANUMERIC.encode("aéb").tolist() == [12, 1, 13]
    assert ALPHANUMERIC.decode(np.array([12, 1, 0, 13])) == "a" + UNKNOWN_CHARACTER
    assert ALPHANUMERIC.unknown("A-é!") == ["é"]


def test_punctuation_has_no_position_unless_the_alphabet_holds_it():
    text = "Don't-£5!"
    assert ALPHANUMERIC.decode(ALPHANUMERIC.encode(text)) == "dont5"
    assert "".join(c for c, kept in zip(text, ALPHANUMERIC.kept(text), strict=True) if kept) == "Dont5"
    assert ALPHANUMERIC.unknown("Don't £5 café") == [" ", "é"]
    marks = Charset("dont'", skip_punctuation=True)
    assert marks.decode(marks.encode("don't!")) == "don't"


@pytest.mark.parametrize(("characters", "cased"), [("", False), ("aa", False), ("a b", False), ("aB", False)])
def test_bad_charsets_are_refused(characters, cased):
    with pytest.raises(ValueError, match="charset"):
        Charset(characters, cased)


def test_charset_file(tmp_path):
    path = tmp_path / "letters.txt"
    path.write_text("abc\nÄß\n", "utf-8")
    assert load_charset(path) == Charset("abcÄß", case_sensitive=True)
    with pytest.raises(ValueError, match=r"missing\.txt"):
        load_charset(tmp_path / "missing.txt")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    assert Config.from_dict(preset(name).to_dict()) == preset(name)


def test_overrides_are_used_as_given():
    config = override(preset("tiny"), ["data.augment=false", "optimizer.learning_rate=0.125", 'data.train=["a", "b"]'])
    assert config.data.augment is False
    assert config.optimizer.learning_rate == 0.125
    assert config.data.train == ("a", "b")
    assert "optimizer.learning_rate: 0.005 -> 0.125" in difference(preset("tiny").to_dict(), config.to_dict())


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("train.validate_every_steps=0", "train.validate_every_steps is 0: must be at least 1"),
        ("train.steps=5", "no key 'steps' in train; keys: num_steps"),
        ("training.x=5", "no section 'training'"),
        ("data.augment=maybe", "data.augment is 'maybe'"),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate is 'fast'"),
        ("train.global_batch_size=6", r"must be a multiple of data.num_streams \(4\)"),
        ("train.workers=3", r"must be a multiple of train.workers \(3\)"),
        ("model.map_stride_x=3", "model.width_px is 64"),
        ("nonsense", "must have the form section.key=value"),
    ],
)
def test_wrong_values_are_named_with_their_rule(assignment, told):
    with pytest.raises(ValueError, match=told):
        override_spec(RunSpec(preset("tiny")), [assignment])


def test_replace_is_checked_too():
    with pytest.raises(ValueError, match=r"optimizer\.learning_rate is -1"):
        OptimizerConfig(learning_rate=-1)
    with pytest.raises(ValueError, match="weights"):
        dataclasses.replace(preset("tiny").data, weights=(1.0,))
