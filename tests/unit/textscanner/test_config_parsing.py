"""Files and assignments are parsed into configs; what cannot be parsed is refused by name."""

import pytest

from textscanner.config import Config, override
from textscanner.config_parsing import json_object
from textscanner.errors import UserError
from textscanner.presets import preset


def test_a_damaged_list_in_an_assignment_is_a_user_error():
    with pytest.raises(UserError, match=r"^data\.weights=\[1,: not valid JSON: .*; lists look like \[1, 2\]$"):
        override(preset("tiny"), ["data.weights=[1,"])


@pytest.mark.parametrize(
    ("section", "key", "assignment"),
    [("train", "workers", "train.workers"), ("data", "task_cpus", "data.cpus_per_read_task")],
)
def test_a_key_that_configs_no_longer_contain_is_refused_with_file_and_remedy(section, key, assignment):
    values = preset("tiny").to_dict()
    values[section][key] = 3
    with pytest.raises(UserError) as raised:
        Config.from_dict(values, "runs/x/config.json")
    message = str(raised.value)
    assert message.startswith(f"runs/x/config.json: the key {section}.{key} is no longer part of a checkpoint's config")
    assert message.endswith(f"remove it from the file; set it with {assignment}=value when training")


@pytest.mark.parametrize("content", ["{", "[1]", b"\xff\xfe\x00"])
def test_a_file_that_holds_no_json_object_is_named_with_the_remedy(content):
    with pytest.raises(UserError, match=r"^x\.json is damaged: .*; delete it$"):
        json_object(content, "x.json", "delete it")
