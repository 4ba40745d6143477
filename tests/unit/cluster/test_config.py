"""Run specs: one flat namespace of keys over both configs."""

import pytest

from cluster.config import RunSpec, RuntimeConfig
from cluster.config import override as override_spec
from textscanner.config_parsing import _MOVED_KEYS, flatten
from textscanner.presets import preset


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.validate_every_steps=0", "train.validate_every_steps is 0: must be at least 1"),
        ("train.steps=5", "no key 'steps' in train; keys: num_steps"),
        ("training.x=5", "no section 'training'"),
        ("data.augment=maybe", "data.augment is 'maybe'"),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate is 'fast'"),
        ("train.global_batch_size=6", r"must be a multiple of data.num_streams \(4\)"),
        ("train.workers=3", r"must be a multiple of train.workers \(3\)"),
        ("model.map_stride_x=3", "model.width_px is 64"),
        ("data.task_cpus=1", "data.task_cpus was renamed: use data.cpus_per_read_task"),
        ("train.max_skipped_steps=-1", "train.max_skipped_steps is -1: must not be negative"),
        (
            "train.checkpoint_every_minutes=often",
            "train.checkpoint_every_minutes is 'often': must be a number of minutes",
        ),
        ("train.checkpoint_every_minutes=nan", "train.checkpoint_every_minutes is nan: must be a number of minutes, 0"),
        ("train.mean_hours_between_failures=0", "train.mean_hours_between_failures is 0.0: must be a positive number"),
        ("train.workers=many", "train.workers is 'many'"),
        ("nonsense", "must have the form section.key=value"),
    ],
)
def test_invalid_values_are_named_with_their_rule(assignment, message):
    with pytest.raises(ValueError, match=message):
        override_spec(RunSpec(preset("tiny")), [assignment])


def test_every_runtime_key_in_a_config_file_is_explained():
    assert set(flatten(RuntimeConfig().to_dict())) | {"data.task_cpus"} == set(_MOVED_KEYS)
